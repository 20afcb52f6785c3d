//! Threads on cores.

use core_affinity::CoreId;

/// The cores this process may run on, in order.
pub fn cores() -> Vec<u32> {
    let ids = core_affinity::get_core_ids().unwrap_or_default();
    ids.into_iter().map(|core| core.id as u32).collect()
}

/// Binds the calling thread to `core`, and asks the kernel whether it is so: the call alone can
/// fail in silence.
///
/// # Errors
/// What to tell the user; the thread then runs where the kernel puts it.
pub fn to(core: u32) -> Result<(), String> {
    let asked = core_affinity::set_for_current(CoreId { id: core as usize });
    if asked && cores() == [core] {
        return Ok(());
    }
    Err(format!("thread not pinned to core {core}: the kernel refused (is it in the cpuset?)"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_pinned_thread_sees_its_own_core_alone() {
        let core = super::cores()[0];
        let seen = std::thread::spawn(move || super::to(core).map(|()| super::cores())).join();
        assert_eq!(seen.unwrap(), Ok(vec![core]));
    }

    #[test]
    fn a_core_that_is_not_there_is_refused() {
        let result = std::thread::spawn(|| super::to(1000)).join().unwrap();
        assert!(result.unwrap_err().contains("core 1000"));
    }
}
