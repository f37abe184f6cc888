//! Freezing containers that wait for locks, and databases whose daemon does not answer.

use super::databases::daemon_of;
use super::{container, real};
use hoody_state::Caller;
use hoody_state::Code;
use hoody_state::model::{Consistency, NewContainer, Verb};
use hoody_state_workspace::worker::{import, line, said};
use hoody_state_workspace::{RealHost, assert_clean, project, snapshot};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::time::{Duration, Instant};

fn worker(n: &mut NewContainer) {
    n.container_image = Some("worker".into());
}

/// What holds up whoever has no deadline: far below the five seconds of a freeze, far above what a loaded machine needs.
const PROMPT: Duration = Duration::from_secs(2);

fn lifecycle(real: &RealHost, c: &hoody_state::id::ContainerId, verb: Verb) -> Duration {
    let began = Instant::now();
    real.host().lifecycle(&Caller::default(), c, verb, None).unwrap();
    began.elapsed()
}

#[test]
fn a_container_that_waits_for_a_lock_is_paused_at_once_and_its_program_sees_no_error() {
    let real = real("pause-waiter");
    import(&real);
    let p = project(real.host(), "web");
    let (a, b) = (container(&real, &p, "a", worker), container(&real, &p, "b", worker));
    real.sh(&a, &line("init /hoody/databases/wal.db"));
    real.sh(&a, &line("init-delete /hoody/databases/journal.db"));
    for db in ["wal.db", "journal.db"] {
        std::thread::scope(|s| {
            let real = &real;
            let holds = s.spawn(|| real.sh(&a, &line(&format!("hold /hoody/databases/{db} 4000"))));
            std::thread::sleep(Duration::from_millis(500));
            // It cannot get the lock before the other one ends its transaction.
            let waits = s.spawn(|| real.sh(&b, &line(&format!("add /hoody/databases/{db} 4 6000"))));
            std::thread::sleep(Duration::from_millis(700));
            for _ in 0..3 {
                let took = lifecycle(real, &b, Verb::Pause);
                assert!(took < PROMPT, "{db}: the pause took {took:?}");
                lifecycle(real, &b, Verb::Resume);
                std::thread::sleep(Duration::from_millis(100));
            }
            assert!(!holds.is_finished(), "it was waited for all the while");
            holds.join().unwrap();
            // Its program panics at the first `database is locked`.
            assert!(said::<i64>(&waits.join().unwrap(), "added") > 0, "{db}");
        });
    }
    assert_clean(real.host(), "after pauses of waiting containers");
}

#[test]
fn pausing_containers_that_write_loses_no_transaction() {
    let real = real("pause-writers");
    import(&real);
    let p = project(real.host(), "web");
    let (a, b) = (container(&real, &p, "a", worker), container(&real, &p, "b", worker));
    real.sh(&a, &line("init /hoody/databases/data.db"));
    let added: i64 = std::thread::scope(|s| {
        let real = &real;
        let write = |c| s.spawn(move || said::<i64>(&real.sh(c, &line("add /hoody/databases/data.db 8 4000")), "added"));
        let writers = [write(&a), write(&b)];
        // Nothing can be started in a paused container.
        std::thread::sleep(Duration::from_millis(500));
        let end = Instant::now() + Duration::from_secs(3);
        while Instant::now() < end {
            lifecycle(real, &b, Verb::Pause);
            std::thread::sleep(Duration::from_millis(20));
            lifecycle(real, &b, Verb::Resume);
            std::thread::sleep(Duration::from_millis(30));
        }
        writers.into_iter().map(|w| w.join().unwrap()).sum()
    });
    assert_eq!(said::<i64>(&real.sh(&b, &line("sum /hoody/databases/data.db")), "sum"), added, "nothing is lost, nothing is twice");
    assert_clean(real.host(), "after pauses among writers");
}

#[test]
fn a_snapshot_with_nested_volumes_is_taken_while_databases_are_written() {
    let real = real("nested-writers");
    import(&real);
    let p = project(real.host(), "web");
    let (a, b) = (container(&real, &p, "a", worker), container(&real, &p, "b", worker));
    real.sh(&a, &line("init /hoody/databases/data.db"));
    let nested = real.live(&a).join("nested");
    let made = std::process::Command::new("btrfs").args(["subvolume", "create"]).arg(&nested).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    std::thread::scope(|s| {
        let real = &real;
        let write = |c| s.spawn(move || said::<i64>(&real.sh(c, &line("add /hoody/databases/data.db 8 4000")), "added"));
        let writers = [write(&a), write(&b)];
        std::thread::sleep(Duration::from_millis(500));
        for n in 0..5 {
            // The container stands still for its two volumes; its writers wait for the databases by then.
            let began = Instant::now();
            let taken = snapshot(real.host(), &a, &format!("s{n}")).unwrap();
            assert!(began.elapsed() < PROMPT, "{:?}", began.elapsed());
            assert_eq!(taken.consistency, Consistency::DatabasesQuiesced);
        }
        for w in writers {
            assert!(w.join().unwrap() > 0);
        }
    });
    assert_clean(real.host(), "after snapshots with nested volumes");
}

/// Continues the daemon also when a test fails.
struct Stopped(Pid);

impl Stopped {
    fn new(real: &RealHost) -> Self {
        let pid = Pid::from_raw(daemon_of(real));
        kill(pid, Signal::SIGSTOP).unwrap();
        Stopped(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

#[test]
fn a_stopped_daemon_delays_containers_only_for_a_time() {
    let real = real("stopped-daemon");
    import(&real);
    let p = project(real.host(), "web");
    let (a, b) = (container(&real, &p, "a", worker), container(&real, &p, "b", worker));
    real.sh(&a, &line("init /hoody/databases/data.db"));
    lifecycle(&real, &b, Verb::Stop);
    let stopped = Stopped::new(&real);

    let began = Instant::now();
    let taken = snapshot(real.host(), &a, "while-stopped").unwrap();
    assert_eq!(taken.consistency, Consistency::Crash, "nobody vouches for the databases");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());

    let began = Instant::now();
    let e = real.host().lifecycle(&Caller::default(), &b, Verb::Start, None).unwrap_err();
    assert_eq!(e.code(), Code::DatabasesUnavailable, "{e}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());

    let began = Instant::now();
    lifecycle(&real, &a, Verb::Pause);
    lifecycle(&real, &a, Verb::Resume);
    real.host().container_detail(&a).unwrap();
    real.host().stats(&a).unwrap();
    real.host().check(false).unwrap();
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());

    drop(stopped);
    lifecycle(&real, &b, Verb::Start);
    assert_eq!(said::<i64>(&real.sh(&b, &line("sum /hoody/databases/data.db")), "sum"), 0);
    assert_eq!(snapshot(real.host(), &a, "afterwards").unwrap().consistency, Consistency::DatabasesQuiesced);
    assert_clean(real.host(), "after a daemon that was stopped");
}
