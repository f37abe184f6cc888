//! Requests with one idempotency key at the same time each made their change.

use hoody_state::Caller;
use hoody_state_workspace::MemoryWorld;

#[test]
fn concurrent_requests_with_one_key_make_one_change() {
    let w = MemoryWorld::new();
    let h = w.host();
    for n in 0..40u8 {
        let key = hoody_state::host::IdempotencyKey { scope: "t".into(), key: format!("key{n}"), fingerprint: [n; 32] };
        let caller = Caller { idempotency: Some(key), ..Caller::default() };
        let input = hoody_state::model::ProjectInput { alias: Some(format!("p{n}")), ..Default::default() };
        let ids: Vec<_> = std::thread::scope(|s| {
            let all: Vec<_> = (0..4).map(|_| s.spawn(|| h.create_project(&caller, input.clone()).map(|p| p.id))).collect();
            all.into_iter().map(|t| t.join().unwrap().unwrap()).collect()
        });
        assert!(ids.iter().all(|i| *i == ids[0]));
    }
}
