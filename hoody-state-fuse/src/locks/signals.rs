//! Whether a waiting task has a signal that should end its wait. The kernel tells FUSE servers by INTERRUPT, which `fuser` refuses, after which a
//! killed waiter would stay until its answer: so the tasks that wait are looked at.

use super::super::threads::task_status;

/// INT, TERM, HUP, QUIT, KILL: others (a timer, a child's end) must not turn into SQLITE_BUSY.
const ENDING: u64 = bit(2) | bit(15) | bit(1) | bit(3) | KILL;
const KILL: u64 = bit(9);

/// A signal's bit in the masks of `/proc/<tid>/status`.
const fn bit(signal: u32) -> u64 {
    1 << (signal - 1)
}

/// The process of a thread.
pub(super) fn process_of(tid: u32) -> Option<u32> {
    let status = task_status(tid)?;
    status.lines().find_map(|l| l.strip_prefix("Tgid:"))?.trim().parse().ok()
}

/// Whether a thread has an ending signal pending that it would act on, or is gone.
pub(super) fn should_end(tid: u32) -> bool {
    task_status(tid).is_none_or(|s| pending(&s))
}

/// The same, from the text of `/proc/<tid>/status`.
fn pending(status: &str) -> bool {
    let mask = |key: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'));
        line.and_then(|v| u64::from_str_radix(v.trim(), 16).ok()).unwrap_or(0)
    };
    let pending = mask("SigPnd") | mask("ShdPnd");
    let unheard = mask("SigBlk") | mask("SigIgn");
    pending & KILL != 0 || pending & ENDING & !unheard != 0
}

#[cfg(test)]
mod tests {
    use super::pending;

    fn status(pnd: u64, shd: u64, blk: u64, ign: u64) -> String {
        format!("Name:\tx\nSigPnd:\t{pnd:016x}\nShdPnd:\t{shd:016x}\nSigBlk:\t{blk:016x}\nSigIgn:\t{ign:016x}\nSigCgt:\t0\n")
    }

    #[test]
    fn only_ending_signals_that_are_heard_count() {
        assert!(pending(&status(1 << 14, 0, 0, 0)));
        assert!(pending(&status(0, 1 << 8, u64::MAX, 0)), "nobody blocks KILL");
        assert!(!pending(&status(1 << 14, 0, 1 << 14, 0)), "blocked");
        assert!(!pending(&status(0, 1 << 14, 0, 1 << 14)), "ignored");
        assert!(!pending(&status(1 << 13, 1 << 16, 0, 0)), "ALRM and CHLD");
        assert!(!pending(""));
    }
}
