//! Idempotency keys.

use hoody_state::Code;
use hoody_state::host::IdempotencyKey;
use hoody_state::model::NewSnapshot;
use hoody_state::{Caller, Host};
use hoody_state_workspace::{MemoryWorld, assert_clean, at_rest, container, furnish, picture, refused, snapshot};
use std::time::Duration;

fn with(key: &str, request: u8) -> Caller {
    Caller { idempotency: Some(IdempotencyKey { scope: "t".into(), key: key.into(), fingerprint: [request; 32] }), ..Caller::default() }
}

fn take(h: &Host, c: &hoody_state::id::ContainerId, caller: &Caller) -> hoody_state::Result<String> {
    let new = NewSnapshot { alias: Some("k".into()), ..Default::default() };
    h.create_snapshot(caller, c, new).map(|a| a.snapshot.name.to_string())
}

#[test]
fn the_same_request_is_answered_again_and_another_is_refused() {
    let w = MemoryWorld::new();
    let h = w.host();
    let c = container(&h, &furnish(&h), "dev").unwrap();
    let first = take(&h, &c, &with("a", 1)).unwrap();
    let before = picture(&h);
    assert_eq!(take(&h, &c, &with("a", 1)).unwrap(), first);
    assert!(before == picture(&h), "an answer that is repeated changes nothing");
    refused(&h, Code::IdempotencyKeyReused, || take(&h, &c, &with("a", 2)));
    // Another key is another request; a refused one does not use its key up.
    refused(&h, Code::AliasInUse, || take(&h, &c, &with("b", 1)));
    h.delete_snapshot(&Caller::default(), &c, "k").unwrap();
    take(&h, &c, &with("b", 1)).unwrap();
    // Other scopes have other keys.
    let mut other = with("b", 9);
    other.idempotency.as_mut().unwrap().scope = "another token".into();
    refused(&h, Code::AliasInUse, || take(&h, &c, &other));
    // Deletes too.
    h.delete_container(&with("d", 1), &c).unwrap();
    at_rest(&h);
    h.delete_container(&with("d", 1), &c).unwrap();
}

#[test]
fn a_request_under_way_is_not_begun_again() {
    let (h, gate) = super::races::gated();
    let c = container(&h, &furnish(&h), "dev").unwrap();
    gate.close("snapshot.create:snapshot");
    std::thread::scope(|s| {
        let first = s.spawn(|| take(&h, &c, &with("a", 1)));
        gate.wait_for_someone();
        let e = take(&h, &c, &with("a", 1)).unwrap_err();
        assert_eq!(e.code(), Code::IdempotencyInFlight);
        gate.open();
        let first = first.join().unwrap().unwrap();
        assert_eq!(take(&h, &c, &with("a", 1)).unwrap(), first);
    });
    assert_eq!(h.snapshots(&c).unwrap().snapshot_count, 1);
}

#[test]
fn a_request_repeated_after_a_crash_at_any_step_takes_effect_once() {
    for n in 1.. {
        let w = MemoryWorld::new();
        let h = w.host();
        let p = furnish(&h);
        let c = container(&h, &p, "dev").unwrap();
        snapshot(&h, &c, "other").unwrap();
        w.crash_at(n);
        let created = take(&h, &c, &with("s", 1));
        let new = || hoody_state::model::NewContainer { name: Some("second".into()), ..Default::default() };
        let made = h.create_container(&with("c", 1), &p, new());
        let stopped = h.lifecycle(&with("l", 1), &c, hoody_state::model::Verb::Stop, None);
        let deleted = h.delete_snapshot(&with("d", 1), &c, "other");
        let crashed = created.is_err() || made.is_err() || stopped.is_err() || deleted.is_err();
        drop(h);
        w.crash_at(0);
        let h = w.host();
        at_rest(&h);
        let name = take(&h, &c, &with("s", 1)).unwrap_or_else(|e| panic!("step {n}: {e:?}"));
        assert!(created.as_ref().is_ok_and(|c| *c == name) || created.is_err(), "step {n}");
        let second = h.create_container(&with("c", 1), &p, new()).unwrap_or_else(|e| panic!("step {n}: {e:?}"));
        assert!(made.is_err() || made.is_ok_and(|m| m.id == second.id));
        h.lifecycle(&with("l", 1), &c, hoody_state::model::Verb::Stop, None).unwrap_or_else(|e| panic!("step {n}: {e:?}"));
        h.delete_snapshot(&with("d", 1), &c, "other").unwrap_or_else(|e| panic!("step {n}: {e:?}"));
        assert_eq!(h.snapshots(&c).unwrap().snapshot_count, 1, "step {n}");
        assert_eq!(h.containers(&hoody_state::model::PageRequest::first(), None, None).unwrap().rows.len(), 2, "step {n}");
        std::thread::sleep(Duration::from_millis(1));
        assert_clean(&h, &format!("step {n}"));
        if !crashed {
            assert!(n > 8, "only {n} steps");
            return;
        }
    }
}
