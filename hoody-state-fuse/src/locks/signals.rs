//! Whether a waiting task has a signal that should end its wait. The kernel reports this to FUSE servers by INTERRUPT, which `fuser` does not support. A killed
//! waiter would then stay until its answer, so the waiting tasks are checked.

use super::super::threads::task_status;
use nix::libc::{SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGSTOP, SIGTERM, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH};

/// The bit of a signal in the masks of `/proc/<tid>/status`.
const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

const KILL: u64 = bit(SIGKILL);
/// Signals with which people and supervisors end processes. Others (a timer, the end of a child) must not become SQLITE_BUSY.
const ENDING: u64 = bit(SIGINT) | bit(SIGTERM) | bit(SIGHUP) | bit(SIGQUIT) | KILL;
/// Signals that are ignored without a handler.
const IDLE: u64 = bit(SIGCHLD) | bit(SIGURG) | bit(SIGWINCH) | bit(SIGCONT);
/// Signals that stop the process without a handler. One thread handles them.
const STOPPING: u64 = bit(SIGSTOP) | bit(SIGTSTP) | bit(SIGTTIN) | bit(SIGTTOU);

/// The process of a thread.
pub(crate) fn process_of(tid: u32) -> Option<u32> {
    let status = task_status(tid)?;
    status.lines().find_map(|l| l.strip_prefix("Tgid:"))?.trim().parse().ok()
}

/// Whether a thread has a pending signal that should end its wait, or has ended.
pub(super) fn should_end(tid: u32, asked_to_wait: bool) -> bool {
    // A thread that this process cannot see is assumed to have none.
    tid != 0 && task_status(tid).is_none_or(|s| interrupts(&s, asked_to_wait))
}

/// The same, from the text of `/proc/<tid>/status`.
///
/// A caller that did not ask to wait (SQLite) is only answered if the signal kills it: natively another signal would not be an error. A caller that asked to wait
/// gets EINTR for each signal that it handles, as natively. A signal to the process is handled by one thread, and another must not be answered: the internal code
/// of the kernel for "handle your signals" would reach the program. That thread is the main one, if it does not block the signal. A deadly signal ends all threads.
fn interrupts(status: &str, asked_to_wait: bool) -> bool {
    let field = |key: &str| status.lines().find_map(|l| Some(l.strip_prefix(key)?.strip_prefix(':')?.trim()));
    let mask = |key: &str| field(key).and_then(|v| u64::from_str_radix(v, 16).ok()).unwrap_or(0);
    let (own, shared, caught) = (mask("SigPnd"), mask("ShdPnd"), mask("SigCgt"));
    // KILL cannot be blocked, ignored or caught.
    let heard = !(mask("SigBlk") | mask("SigIgn")) | KILL;
    let deadly = heard & !(caught & !KILL);
    if !asked_to_wait {
        return (own | shared) & ENDING & deadly != 0;
    }
    let handles_for_process = field("Threads") == Some("1") || field("Tgid").is_some_and(|tgid| field("Pid") == Some(tgid));
    let ends = heard & (caught | !IDLE);
    let ends_here = if handles_for_process { ends } else { ends & deadly & !STOPPING };
    own & ends != 0 || shared & ends_here != 0
}

#[cfg(test)]
mod tests {
    use super::interrupts;

    const INT: u64 = 1 << 1;
    const KILL: u64 = 1 << 8;
    const ALRM: u64 = 1 << 13;
    const TERM: u64 = 1 << 14;
    const CHLD: u64 = 1 << 16;
    const CONT: u64 = 1 << 17;
    const STOP: u64 = 1 << 18;
    const TSTP: u64 = 1 << 19;
    const URG: u64 = 1 << 22;
    const WINCH: u64 = 1 << 27;

    /// Of a thread; the main one and the only one unless said otherwise.
    #[derive(Default)]
    struct Status {
        own: u64,
        shared: u64,
        blocked: u64,
        ignored: u64,
        caught: u64,
        /// One of several, and not the main one.
        other: bool,
        main_of_many: bool,
    }

    impl Status {
        fn interrupts(&self, asked_to_wait: bool) -> bool {
            let Status { own, shared, blocked, ignored, caught, other, main_of_many } = self;
            let (pid, threads) = (if *other { 78 } else { 77 }, if *other || *main_of_many { 3 } else { 1 });
            let text = format!(
                "Name:\tx\nTgid:\t77\nNgid:\t0\nPid:\t{pid}\nPPid:\t1\nThreads:\t{threads}\nSigQ:\t1/7\nSigPnd:\t{own:016x}\nShdPnd:\t{shared:016x}\nSigBlk:\t{blocked:016x}\nSigIgn:\t{ignored:016x}\nSigCgt:\t{caught:016x}\n"
            );
            interrupts(&text, asked_to_wait)
        }
    }

    #[test]
    fn whoever_did_not_ask_to_wait_is_answered_only_if_it_dies() {
        let ends = |s: Status| s.interrupts(false);
        assert!(ends(Status { own: TERM, ..Status::default() }));
        assert!(ends(Status { shared: INT, other: true, ..Status::default() }), "all threads die");
        assert!(!ends(Status { own: TERM, blocked: TERM, ..Status::default() }));
        assert!(!ends(Status { shared: TERM, ignored: TERM, ..Status::default() }));
        assert!(!ends(Status { own: ALRM, shared: CHLD, ..Status::default() }));
        assert!(!interrupts("", false));
    }

    #[test]
    fn a_service_with_a_handler_for_term_is_not_told_that_its_database_is_locked() {
        assert!(!Status { shared: TERM, caught: TERM, ..Status::default() }.interrupts(false));
        assert!(!Status { own: TERM, caught: TERM, other: true, ..Status::default() }.interrupts(false));
        assert!(Status { shared: TERM | INT, caught: TERM, ..Status::default() }.interrupts(false), "the other one kills");
    }

    #[test]
    fn nothing_keeps_from_being_killed() {
        for asked_to_wait in [false, true] {
            for other in [false, true] {
                assert!(Status { shared: KILL, blocked: u64::MAX, ignored: u64::MAX, caught: u64::MAX, other, ..Status::default() }.interrupts(asked_to_wait));
            }
        }
    }

    #[test]
    fn whoever_asked_to_wait_is_interrupted_by_what_it_hears() {
        let ends = |s: Status| s.interrupts(true);
        assert!(ends(Status { shared: ALRM, caught: ALRM, ..Status::default() }));
        assert!(ends(Status { own: ALRM, ..Status::default() }), "it dies of it");
        assert!(ends(Status { shared: CHLD, caught: CHLD, ..Status::default() }));
        assert!(ends(Status { shared: STOP, ..Status::default() }));
        assert!(!ends(Status { own: ALRM, caught: ALRM, blocked: ALRM, ..Status::default() }));
        assert!(!ends(Status { own: ALRM, ignored: ALRM, ..Status::default() }));
        assert!(!ends(Status { own: CHLD | CONT, shared: URG | WINCH, ..Status::default() }), "they are ignored");
        assert!(!interrupts("", true));
    }

    #[test]
    fn a_signal_to_the_process_is_told_to_the_thread_that_hears_it() {
        let ends = |s: Status| s.interrupts(true);
        assert!(ends(Status { shared: ALRM, caught: ALRM, main_of_many: true, ..Status::default() }));
        assert!(!ends(Status { shared: ALRM, caught: ALRM, other: true, ..Status::default() }), "errno 512 would reach the program");
        assert!(!ends(Status { shared: TSTP, other: true, ..Status::default() }));
        assert!(ends(Status { own: ALRM, caught: ALRM, other: true, ..Status::default() }), "sent to this very thread");
        assert!(ends(Status { shared: TERM, other: true, ..Status::default() }), "all threads die");
    }
}
