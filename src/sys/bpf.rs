//! Loading a steering program, giving it its sockets, and attaching it by a link that dies with the
//! process.
//!
//! Knows of the program only that it has one XDP function and one XSKMAP; what its tables mean is
//! the caller's affair.

use super::{check, failed};
use libbpf_rs::libbpf_sys;
use libbpf_rs::query::{LinkInfo, LinkInfoIter, LinkTypeInfo};
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType, Object, ObjectBuilder, ProgramInput};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// Verdicts of an XDP program that a test run may answer.
pub const XDP_PASS: u32 = libbpf_sys::XDP_PASS;
/// See [`XDP_PASS`].
pub const XDP_REDIRECT: u32 = libbpf_sys::XDP_REDIRECT;

/// A loaded program with its map of sockets by queue.
pub struct Program {
    object: Object,
    sockets: MapHandle,
}

/// A program attached to an interface; dropping it, or the end of the process however it comes,
/// detaches.
pub struct Link(OwnedFd);

/// Where in the receive path the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// In the driver.
    Native,
    /// After the driver, on socket buffers: works everywhere, slower.
    Generic,
}

impl Program {
    /// Loads an object file. Each of `tables` is the name of a data section and what to write at
    /// its start, before the verifier sees it. With `bound_to`, the index of an interface, it may
    /// ask that interface's driver about a frame, and can be attached natively and nowhere else.
    ///
    /// # Errors
    /// Not permitted, a kernel that is too old, or an object without the expected parts; with what
    /// to do.
    pub fn load(
        object: &[u8],
        tables: &[(&str, &[u8])],
        bound_to: Option<u32>,
    ) -> io::Result<Program> {
        // A program that takes frames of several buffers (Linux 5.18) can be attached to an
        // interface with jumbo frames; it looks at the first buffer only, where all headers are.
        Program::load_flagged(object, tables, bound_to, libbpf_sys::BPF_F_XDP_HAS_FRAGS)
            .or_else(|_| Program::load_flagged(object, tables, bound_to, 0))
    }

    fn load_flagged(
        object: &[u8],
        tables: &[(&str, &[u8])],
        bound_to: Option<u32>,
        mut flags: u32,
    ) -> io::Result<Program> {
        // libbpf prints to stderr by default; what went wrong is in the error.
        libbpf_rs::set_print(None);
        let mut open = ObjectBuilder::default()
            .name("shakedown")
            .and_then(|builder| builder.open_memory(object))
            .map_err(|cause| failed("read the XDP program's object", from_libbpf(cause)))?;
        for (section, bytes) in tables {
            let mut map = open
                .maps_mut()
                .find(|map| map.name().to_string_lossy().ends_with(section))
                .ok_or_else(|| malformed(&format!("the XDP program has no section {section}")))?;
            map.initial_value_mut()
                .and_then(|value| value.get_mut(..bytes.len()))
                .ok_or_else(|| malformed(&format!("section {section} is too small")))?
                .copy_from_slice(bytes);
        }
        if let (Some(index), Some(mut program)) = (bound_to, open.progs_mut().next()) {
            program.set_ifindex(index);
            flags |= libbpf_sys::BPF_F_XDP_DEV_BOUND_ONLY;
        }
        if let Some(mut program) = open.progs_mut().next() {
            program.set_flags(flags);
        }
        let object = open.load().map_err(|cause| {
            let attempt =
                "load the XDP program (needs root, or CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, and Linux 5.9)";
            failed(attempt, from_libbpf(cause))
        })?;
        let sockets = object
            .maps()
            .find(|map| map.map_type() == MapType::Xskmap)
            .ok_or_else(|| malformed("the XDP program has no XSKMAP"))
            .and_then(|map| MapHandle::try_from(&map).map_err(from_libbpf))?;
        Ok(Program { object, sockets })
    }

    /// Attaches to an interface.
    ///
    /// # Errors
    /// `Unsupported` or `InvalidInput`: the driver has no native XDP, or not with the interface's
    /// MTU or features. `ResourceBusy` or `AlreadyExists`: another program is attached.
    pub fn attach(&self, ifindex: u32, hook: Hook) -> io::Result<Link> {
        let program = self.object.progs().next().ok_or_else(|| malformed("no XDP program"))?;
        let mut options = libbpf_sys::bpf_link_create_opts {
            sz: size_of::<libbpf_sys::bpf_link_create_opts>() as _,
            ..Default::default()
        };
        options.flags = match hook {
            Hook::Native => libbpf_sys::XDP_FLAGS_DRV_MODE,
            Hook::Generic => libbpf_sys::XDP_FLAGS_SKB_MODE,
        };
        // SAFETY: the program's descriptor is alive, `options` says its own size and is read during
        // the call.
        let result = unsafe {
            libbpf_sys::bpf_link_create(
                program.as_fd().as_raw_fd(),
                ifindex as i32,
                libbpf_sys::BPF_XDP,
                &options,
            )
        };
        let fd = check(result, &format!("attach the XDP program ({hook:?})"))?;
        // SAFETY: a descriptor just made, owned by nobody else.
        Ok(Link(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Sends what the program redirects on `queue` to this AF_XDP socket, until the socket is
    /// closed.
    ///
    /// # Errors
    /// The program has no such queue, or the descriptor is no bound AF_XDP socket.
    pub fn give_socket(&self, queue: u32, socket: impl AsFd) -> io::Result<()> {
        let fd = socket.as_fd().as_raw_fd();
        self.sockets
            .update(&queue.to_ne_bytes(), &fd.to_ne_bytes(), MapFlags::ANY)
            .map_err(|cause| failed(format_args!("steer queue {queue}"), from_libbpf(cause)))
    }

    /// Takes the socket of `queue` out: its packets go to the kernel.
    ///
    /// # Errors
    /// It had none.
    pub fn take_socket(&self, queue: u32) -> io::Result<()> {
        self.sockets
            .delete(&queue.to_ne_bytes())
            .map_err(|cause| failed(format_args!("leave queue {queue}"), from_libbpf(cause)))
    }

    /// The program's verdict on a frame, without a NIC (BPF_PROG_TEST_RUN), as if it had come on
    /// queue 0.
    ///
    /// # Errors
    /// Frames below 14 bytes are refused by the kernel.
    pub fn test_run(&self, frame: &[u8]) -> io::Result<u32> {
        let program = self.object.progs_mut().next().ok_or_else(|| malformed("no XDP program"))?;
        let input = ProgramInput { data_in: Some(frame), ..ProgramInput::default() };
        let output = program.test_run(input).map_err(from_libbpf)?;
        Ok(output.return_value)
    }
}

impl Link {
    /// False once the interface is gone, or somebody else has detached the program.
    pub fn is_attached(&self) -> bool {
        let mut info = libbpf_sys::bpf_link_info::default();
        let mut len = size_of::<libbpf_sys::bpf_link_info>() as u32;
        // SAFETY: `len` says how much there is to write to, and the kernel writes no more.
        let result = unsafe {
            libbpf_sys::bpf_obj_get_info_by_fd(self.0.as_raw_fd(), (&raw mut info).cast(), &mut len)
        };
        // SAFETY: plain integers, all of them; a link of XDP has written this one.
        result == 0 && unsafe { info.__bindgen_anon_1.xdp.ifindex } != 0
    }
}

/// Detaches every XDP program that is attached to an interface by a link, whoever did that, as
/// `bpftool link detach` would; how many there were.
///
/// # Errors
/// Not permitted.
pub fn detach_links(ifindex: u32) -> io::Result<usize> {
    let is_there = |info: &LinkInfo| match &info.info {
        LinkTypeInfo::Xdp(xdp) => xdp.ifindex == ifindex,
        _ => false,
    };
    let ids = LinkInfoIter::default().filter(is_there).map(|info| info.id);
    ids.map(|id| {
        // SAFETY: an integer in, a descriptor out.
        let fd = check(unsafe { libbpf_sys::bpf_link_get_fd_by_id(id) }, "open an XDP link")?;
        // SAFETY: a descriptor just made, owned by nobody else.
        let link = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: the descriptor is alive.
        let result = unsafe { libbpf_sys::bpf_link_detach(link.as_raw_fd()) };
        check(result, "detach an XDP link").map(drop)
    })
    .try_fold(0, |count, detached| detached.map(|()| count + 1))
}

/// Id of the XDP program attached to an interface, if there is one.
///
/// # Errors
/// No such interface, or netlink refuses.
pub fn attached_program(ifindex: u32) -> io::Result<Option<u32>> {
    let mut id = 0;
    // SAFETY: the id is written during the call.
    let result = unsafe { libbpf_sys::bpf_xdp_query_id(ifindex as i32, 0, &mut id) };
    if result < 0 {
        return Err(failed(
            "ask for the attached XDP program",
            io::Error::from_raw_os_error(-result),
        ));
    }
    Ok((id != 0).then_some(id))
}

fn malformed(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// libbpf's error as an `io::Error` of the same kind.
fn from_libbpf(error: libbpf_rs::Error) -> io::Error {
    let kind = match error.kind() {
        libbpf_rs::ErrorKind::PermissionDenied => io::ErrorKind::PermissionDenied,
        libbpf_rs::ErrorKind::NotFound => io::ErrorKind::NotFound,
        libbpf_rs::ErrorKind::InvalidInput => io::ErrorKind::InvalidInput,
        libbpf_rs::ErrorKind::InvalidData => io::ErrorKind::InvalidData,
        libbpf_rs::ErrorKind::Unsupported => io::ErrorKind::Unsupported,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, format!("{error:#}"))
}
