//! The priority of threads.
#![allow(unsafe_code)]

use nix::libc;

/// `IOPRIO_WHO_PROCESS` and `IOPRIO_CLASS_IDLE << IOPRIO_CLASS_SHIFT` of linux/ioprio.h.
const WHO_PROCESS: libc::c_int = 1;
const IDLE: libc::c_int = 3 << 13;

/// From now on this thread gets the disk and the processors only when others leave them idle, as far as the kernel's schedulers support that. A thread cannot take it back
/// without rights, so it is for threads that end with their work.
pub(crate) fn be_idle() {
    // SAFETY: both calls take numbers alone, and 0 is the calling thread.
    unsafe {
        libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, IDLE);
        libc::setpriority(libc::PRIO_PROCESS, 0, 19);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_the_calling_thread_becomes_idle() {
        // SAFETY: takes numbers alone.
        let class = || unsafe { libc::syscall(libc::SYS_ioprio_get, WHO_PROCESS, 0) } >> 13;
        let idle = std::thread::spawn(move || {
            be_idle();
            class()
        });
        assert_eq!(idle.join().unwrap(), 3);
        assert_ne!(class(), 3);
    }
}
