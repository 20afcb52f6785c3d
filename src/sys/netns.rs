//! Network namespaces, entered by one thread at a time. Sockets stay in the namespace they were
//! opened in, so a thread enters, opens what it needs, and may be joined.

use super::{check, failed};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

/// A network namespace, alive as long as this is.
pub struct Namespace(File);

impl Namespace {
    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// /proc is not mounted.
    pub fn current() -> io::Result<Namespace> {
        Namespace::open("/proc/thread-self/ns/net")
    }

    /// A namespace by the name that `ip netns` gave it, or by path if `name` has a slash.
    ///
    /// # Errors
    /// There is none, or it may not be opened.
    pub fn open(name: &str) -> io::Result<Namespace> {
        let path = Path::new("/run/netns").join(name);
        File::open(path)
            .map(Namespace)
            .map_err(|cause| failed(format_args!("open the network namespace {name}"), cause))
    }

    /// Moves the calling thread into the namespace.
    ///
    /// # Errors
    /// Not permitted: needs CAP_SYS_ADMIN.
    pub fn enter(&self) -> io::Result<()> {
        // SAFETY: a live descriptor; other threads are not affected.
        let result = unsafe { libc::setns(self.0.as_raw_fd(), libc::CLONE_NEWNET) };
        check(result, "enter the network namespace (needs root)").map(drop)
    }

    /// Runs `work` in a thread of its own inside the namespace, where /sys shows this namespace and
    /// no change of mounts is seen by anybody else.
    ///
    /// # Errors
    /// Not permitted, or what `work` answers.
    pub fn with_sysfs<T: Send>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send,
    ) -> io::Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter()?;
                mount_own_sysfs()?;
                work()
            });
            thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
        })
    }
}

/// Gives the calling thread mounts of its own, with a /sys of its own network namespace.
fn mount_own_sysfs() -> io::Result<()> {
    // SAFETY: no pointers; only the calling thread is affected.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) }, "take mounts of our own (needs root)")?;
    let (none, root, sys) = (c"none", c"/", c"/sys");
    // SAFETY: C strings; changes of ours do not propagate out of the mounts that were just
    // unshared.
    let result = unsafe {
        let private = libc::MS_REC | libc::MS_SLAVE;
        libc::mount(none.as_ptr(), root.as_ptr(), std::ptr::null(), private, std::ptr::null())
    };
    check(result, "keep our mounts to ourselves")?;
    let sysfs = c"sysfs";
    // SAFETY: C strings.
    let result =
        unsafe { libc::mount(sysfs.as_ptr(), sys.as_ptr(), sysfs.as_ptr(), 0, std::ptr::null()) };
    match check(result, "mount sysfs") {
        // What is mounted there is our namespace's already.
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(()),
        mounted => mounted.map(drop),
    }
}
