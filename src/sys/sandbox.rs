//! What a thread may still do once it works: no privilege of root's, and no system call but those
//! that moving frames takes. A promise that the kernel keeps.
//!
//! Both hold for the thread that asks for them and for those that it starts later, and can't be
//! taken back.

use caps::{CapSet, Capability, CapsHashSet};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use std::io;

/// The system calls of a thread that moves frames, and of its end.
const ALLOWED: [libc::c_long; 32] = [
    // The kick of AF_XDP and its busy poll; what AF_PACKET sends and receives.
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmmsg,
    libc::SYS_recvmmsg,
    // The recording, and what is said to standard error.
    libc::SYS_write,
    libc::SYS_writev,
    // A core that is shared is given up between turns.
    libc::SYS_sched_yield,
    libc::SYS_futex,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    // Where the clock is not mapped into the process.
    libc::SYS_clock_gettime,
    // The end: the kernel's counters of the sockets, then files and memory are given back.
    libc::SYS_getsockopt,
    libc::SYS_close,
    // Of a file that is being closed, in a debug build.
    libc::SYS_fcntl,
    libc::SYS_munmap,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Memory of the application's results, which only what is outside of turns asks for.
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // Signals, a panic and the end of a thread.
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigaction,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_tgkill,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
];

/// The filter of worker threads.
pub struct Filter(BpfProgram);

impl Filter {
    /// # Errors
    /// There is none for this processor.
    pub fn new() -> io::Result<Filter> {
        let rules = ALLOWED.iter().map(|&number| (number, Vec::new())).collect();
        let (refused, allowed) = (SeccompAction::KillProcess, SeccompAction::Allow);
        let program = std::env::consts::ARCH
            .try_into()
            .and_then(|arch| SeccompFilter::new(rules, refused, allowed, arch))
            .and_then(SeccompFilter::try_into);
        program.map(Filter).map_err(|error| io::Error::other(format!("seccomp filter: {error}")))
    }

    /// From here on the thread makes those system calls and no other: one more, and the kernel
    /// kills the process with SIGSYS.
    ///
    /// # Errors
    /// The kernel has no seccomp filters.
    pub fn enter(&self) -> io::Result<()> {
        seccompiler::apply_filter(&self.0)
            .map_err(|error| io::Error::other(format!("enter the seccomp filter: {error}")))
    }
}

/// Gives up all capabilities of the thread for good, whatever it executes later
/// (`PR_SET_NO_NEW_PRIVS`); but for CAP_NET_ADMIN, if it is needed to the end.
///
/// # Errors
/// The kernel's.
pub fn drop_capabilities(keep_net_admin: bool) -> io::Result<()> {
    super::check(
        // SAFETY: this option takes integers alone.
        unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) },
        "give up new privileges",
    )?;
    let has = |capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false);
    let mut keep = CapsHashSet::new();
    if keep_net_admin && has(Capability::CAP_NET_ADMIN) {
        keep.insert(Capability::CAP_NET_ADMIN);
    }
    // To take one from the bounding set takes one; without it nothing can be regained either.
    if has(Capability::CAP_SETPCAP) {
        clear(CapSet::Bounding, &CapsHashSet::new())?;
    }
    clear(CapSet::Ambient, &CapsHashSet::new())?;
    clear(CapSet::Inheritable, &CapsHashSet::new())?;
    clear(CapSet::Effective, &keep)?;
    clear(CapSet::Permitted, &keep)
}

fn clear(set: CapSet, keep: &CapsHashSet) -> io::Result<()> {
    let cleared = match keep.is_empty() {
        true => caps::clear(None, set),
        false => caps::set(None, set, keep),
    };
    cleared.map_err(|error| io::Error::other(format!("drop {set:?} capabilities: {error}")))
}
