use super::{B, Two, eventually, idle, settled};
use hoody_state::id::ContainerId;
use hoody_state::model::{MoveRequest, PolicyTarget, SnapshotPolicy, Status};
use hoody_state::runtime::Runtime;
use hoody_state::transfer::memory::Fault;
use hoody_state::{Caller, Host};
use hoody_state_workspace::assert_clean;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

fn request(two: &Two) -> MoveRequest {
    MoveRequest { target_server_id: Some(two.b.server.id.to_string()), ..Default::default() }
}

fn running(two: &Two, copy: Option<&ContainerId>) -> (bool, bool) {
    let there = copy.is_some_and(|c| two.there.container(c).is_ok_and(|c| c.status == Status::Running));
    (two.here.container(&two.source).unwrap().status == Status::Running, there)
}

#[test]
fn a_moved_container_runs_there_and_not_here() {
    let two = Two::new();
    let policy: SnapshotPolicy = serde_json::from_str(r#"{"on":{"stop":true}}"#).unwrap();
    two.here.set_snapshot_policy(&Caller::default(), &PolicyTarget::Container(two.source.clone()), &policy).unwrap();
    let moved = two.here.move_container(&Caller::default(), &two.source, &request(&two)).unwrap();
    assert!(moved.downtime_ms.is_some());
    assert_eq!(running(&two, Some(&moved.target_container_id)), (false, true));
    let c = two.there.container(&moved.target_container_id).unwrap();
    assert_eq!((c.name.as_str(), two.b.read(&c.id, "state").as_deref()), ("agent", Some("three")));
    let here = two.here.container(&two.source).unwrap();
    assert!(here.status == Status::Stopped && here.status_message.unwrap().contains(c.id.as_str()));
    assert!(two.a.runtime.adopt(&two.source).unwrap().is_none());
    let policy_of = |host: &Host, c: &ContainerId| host.snapshot_policy(&PolicyTarget::Container(c.clone())).unwrap().policy;
    assert_eq!((policy_of(&two.here, &two.source), policy_of(&two.there, &c.id)), (Some(policy), None), "its policy stays here");
    assert_clean(&two.here, "the source of a move");
    assert_clean(&two.there, "the target of a move");
    // And back again.
    let back = MoveRequest { target_server_id: Some(two.a.server.id.to_string()), name: Some("agent-2".into()), ..Default::default() };
    let back = two.there.move_container(&Caller::default(), &c.id, &back).unwrap();
    assert_eq!(two.here.container(&back.target_container_id).unwrap().status, Status::Running);
    assert_eq!(two.there.container(&c.id).unwrap().status, Status::Stopped);
}

#[test]
fn a_stopped_container_is_moved_and_not_started() {
    let two = Two::new();
    two.here.lifecycle(&Caller::default(), &two.source, hoody_state::model::Verb::Stop, None).unwrap();
    let moved = two.here.move_container(&Caller::default(), &two.source, &request(&two)).unwrap();
    assert_eq!(moved.downtime_ms, None);
    assert_eq!(idle(&two.there, &moved.target_container_id).status, Status::Stopped);
    assert_eq!(two.b.read(&moved.target_container_id, "state").as_deref(), Some("three"));
}

/// Whatever fails, exactly one of the two runs once both have had their say.
#[test]
fn a_move_that_fails_at_any_request_leaves_exactly_one_running() {
    for fault in [Fault::Unreachable, Fault::AnswerLost] {
        for word in ["hello", "copy", "state", "inventory", "stream", "advance", "hand_over"] {
            for times in [1, 3, 100] {
                let two = Two::new();
                let left = Arc::new(AtomicU32::new(times));
                let counted = left.clone();
                two.net.set_fault(move |_, what| {
                    let hit = what == word && counted.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
                    hit.then_some(fault)
                });
                let me = Caller { wait: std::time::Duration::from_millis(300), ..Caller::default() };
                let moved = two.here.move_container(&me, &two.source, &request(&two));
                if left.load(Ordering::SeqCst) > 0 {
                    two.net.set_fault(|_, _| None);
                }
                settled(&two.here);
                settled(&two.there);
                let copy = match &moved {
                    Ok(m) => Some(m.target_container_id.clone()),
                    Err(_) => two.there.containers(&hoody_state::model::PageRequest::first(), None, None).unwrap().rows.first().map(|c| c.id.clone()),
                };
                let runs = running(&two, copy.as_ref());
                assert!(runs.0 != runs.1, "{fault:?} of {word}, {times} times: {moved:?} {runs:?}");
                assert_clean(&two.here, "the source");
                assert_clean(&two.there, "the target");
            }
        }
    }
}

#[test]
fn a_move_to_a_target_that_cannot_start_the_container_is_called_off() {
    let two = Two::new();
    two.b.runtime.fail_next_start();
    let e = two.here.move_container(&Caller::default(), &two.source, &request(&two)).unwrap_err();
    assert!(e.message().contains("runs on here"), "{e}");
    assert_eq!(two.here.container(&two.source).unwrap().status, Status::Running);
    let _ = B;
}

/// The source's server ends before each step of a move and starts again.
#[test]
fn a_move_whose_source_crashes_at_any_step_leaves_exactly_one_running() {
    let two = Two::new();
    two.a.crash_at(0);
    two.here.move_container(&Caller::default(), &two.source, &request(&two)).unwrap();
    let steps = two.a.steps();
    assert!(steps > 8, "{steps}");
    for n in 1..=steps {
        let mut two = Two::new();
        two.a.crash_at(n);
        let _ = two.here.move_container(&Caller::default(), &two.source, &request(&two));
        two.restart_here();
        settled(&two.here);
        settled(&two.there);
        let copy = two.there.containers(&hoody_state::model::PageRequest::first(), None, None).unwrap().rows.first().map(|c| c.id.clone());
        let runs = running(&two, copy.as_ref());
        assert!(runs.0 != runs.1, "step {n} of {steps}: {runs:?}");
        assert_clean(&two.here, &format!("the source after step {n}"));
        assert_clean(&two.there, &format!("the target after step {n}"));
    }
}

/// While the target cannot be asked it stands still here; that it is gone for good is the operator's word, given by forgetting it.
#[test]
fn a_container_in_a_move_runs_on_when_the_target_is_removed_as_a_peer() {
    let two = Two::new();
    two.net.set_fault(|url, what| (url == B && what == "hand_over").then_some(Fault::Unreachable));
    let me = Caller { wait: std::time::Duration::from_millis(200), ..Caller::default() };
    let moved = two.here.move_container(&me, &two.source, &request(&two)).unwrap();
    eventually(|| two.here.container(&two.source).unwrap().status == Status::Paused);
    eventually(|| two.there.container(&moved.target_container_id).unwrap().status == Status::Stopped);
    two.here.remove_peer("b").unwrap();
    settled(&two.here);
    assert_eq!(two.here.container(&two.source).unwrap().status, Status::Running);
    assert_clean(&two.here, "after a forgotten target");
}

/// Whoever does not take the token any more, or answers rubbish, has said nothing of what it did.
#[test]
fn a_target_that_refuses_the_token_after_a_hand_over_does_not_end_it() {
    let two = Two::new();
    let (there, mut n) = (two.there.clone(), 0);
    two.net.set_fault(move |url, what| {
        if url != B || what != "hand_over" {
            return None;
        }
        n += 1;
        if n == 2 {
            there.tokens().unwrap().iter().for_each(|t| there.revoke_token(t.id.as_str()).unwrap());
        }
        Some(Fault::AnswerLost)
    });
    let me = Caller { wait: std::time::Duration::from_millis(1500), ..Caller::default() };
    let moved = two.here.move_container(&me, &two.source, &request(&two)).unwrap();
    // It waits for a word.
    eventually(|| two.here.container(&two.source).unwrap().status == Status::Paused);
    eventually(|| running(&two, Some(&moved.target_container_id)) == (false, true));
    two.net.set_fault(|_, _| None);
    let token = two.there.create_token("again", None, hoody_state::model::Rights::Replication).unwrap().1;
    let peer = hoody_state::model::NewPeer { name: Some("b".into()), url: B.into(), token, ca: None };
    two.here.add_peer(&Caller::default(), peer).unwrap();
    settled(&two.here);
    let runs = running(&two, Some(&moved.target_container_id));
    assert!(runs.0 != runs.1, "{runs:?}");
}

#[test]
fn a_failed_move_can_be_tried_again_with_the_same_name() {
    let two = Two::new();
    two.b.runtime.fail_next_start();
    two.here.move_container(&Caller::default(), &two.source, &request(&two)).unwrap_err();
    settled(&two.there);
    let moved = two.here.move_container(&Caller::default(), &two.source, &request(&two)).unwrap();
    settled(&two.here);
    assert_eq!(running(&two, Some(&moved.target_container_id)), (false, true));
}
