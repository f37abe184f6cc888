//! Starts, stops, pauses and restarts that are cut short, and asked for again.

use super::*;

#[test]
fn containers_that_ran_start_after_a_reboot_and_stopped_ones_do_not() {
    let mut w = MemoryWorld::new();
    let (host, c) = stage(&w);
    let p = host.container(&c).unwrap().project_id;
    let stopped = container(&host, &p, "stopped").unwrap();
    host.lifecycle(&Caller::default(), &stopped, Verb::Stop, None).unwrap();
    drop(host);
    w.boot = "the next boot".into();
    w.runtime = std::sync::Arc::new(hoody_state::runtime::memory::MemoryRuntime::new());
    let host = w.host();
    settle(&host);
    assert_eq!(status(&host, &c), Status::Running);
    assert_eq!(status(&host, &stopped), Status::Stopped);
    assert_clean(&host, "after a reboot");
}

#[test]
fn a_pause_or_resume_cut_short_by_a_power_cut_stops_no_container() {
    for (prepare, verb) in [(None, Verb::Pause), (Some(Verb::Pause), Verb::Resume)] {
        for n in 1.. {
            let mut w = MemoryWorld::new();
            let (host, c) = stage(&w);
            prepare.iter().for_each(|v| drop(host.lifecycle(&Caller::default(), &c, *v, None).unwrap()));
            w.crash_at(n);
            let done = host.lifecycle(&Caller::default(), &c, verb, None).is_ok();
            drop(host);
            w.crash_at(0);
            w.power_off();
            let host = w.host();
            settle(&host);
            assert_eq!(status(&host, &c), Status::Running, "{verb:?}, cut short at step {n}: it ran, and starts again as all that ran");
            assert_clean(&host, &format!("{verb:?}, cut short at step {n} by the host's end"));
            if done {
                break;
            }
        }
    }
}

fn keyed(key: &str) -> Caller {
    let key = IdempotencyKey { scope: "t".into(), key: key.into(), fingerprint: [1; 32] };
    Caller { idempotency: Some(key), ..Caller::default() }
}

/// Crashes at each step of a verb, starts again, and asks once more with the same key.
fn asked_again(prepare: &[Verb], verb: Verb, verify: fn(&MemoryWorld, &Host, &ContainerId, Option<hoody_state::id::RunId>)) {
    for n in 1.. {
        let w = MemoryWorld::new();
        let (host, c) = stage(&w);
        for v in prepare {
            host.lifecycle(&Caller::default(), &c, *v, None).unwrap();
        }
        let run = w.runtime.adopt(&c).unwrap().map(|r| r.run);
        w.crash_at(n);
        let crashed = host.lifecycle(&keyed("k"), &c, verb, None).is_err();
        drop(host);
        w.crash_at(0);
        let host = w.host();
        settle(&host);
        assert_clean(&host, "after the restart");
        host.lifecycle(&keyed("k"), &c, verb, None).unwrap_or_else(|e| panic!("{verb:?} crashed at step {n}, asked again: {e}"));
        verify(&w, &host, &c, run);
        let verbs = host.operations(&PageRequest::first()).unwrap().rows;
        let done = verbs.iter().filter(|o| o.kind == format!("container.{}", verb.as_str()) && o.status == OperationStatus::Succeeded).count();
        assert_eq!(done, 1, "{verb:?} crashed at step {n}");
        if !crashed {
            return;
        }
    }
}

#[test]
fn a_restart_cut_short_before_its_stop_is_done_when_asked_for_again() {
    asked_again(&[], Verb::Restart, |w, h, c, before| {
        assert_eq!(status(h, c), Status::Running);
        assert_ne!(w.runtime.adopt(c).unwrap().map(|r| r.run), before, "a restart that is said to be done and restarted nothing");
    });
}

#[test]
fn a_resume_cut_short_is_finished_and_may_be_asked_for_again() {
    asked_again(&[Verb::Pause], Verb::Resume, |w, h, c, before| {
        assert_eq!(status(h, c), Status::Running);
        assert_eq!(w.runtime.adopt(c).unwrap().map(|r| r.run), before, "it goes on where it was");
    });
}

#[test]
fn every_verb_may_be_asked_for_again_with_its_key() {
    for (prepare, verb, to) in [
        (&[][..], Verb::Pause, Status::Paused),
        (&[], Verb::Stop, Status::Stopped),
        (&[Verb::Pause], Verb::ForceStop, Status::Stopped),
        (&[Verb::Stop], Verb::Start, Status::Running),
        (&[Verb::Pause], Verb::Restart, Status::Running),
    ] {
        asked_again(prepare, verb, |_, _, _, _| {});
        let w = MemoryWorld::new();
        let (host, c) = stage(&w);
        prepare.iter().for_each(|v| drop(host.lifecycle(&Caller::default(), &c, *v, None).unwrap()));
        host.lifecycle(&Caller::default(), &c, verb, None).unwrap();
        assert_eq!(status(&host, &c), to);
    }
}
