//! The expiry deleted a snapshot whose expiry had just been extended, or another that had taken its alias.

use crate::support::{At, patiently, rolling};
use hoody_state::freeze::memory::MemoryFreezer;
use hoody_state::runtime::memory::MemoryRuntime;
use hoody_state::snapshot::memory::MemoryStore;
use hoody_state::{Caller, HostBuilder};
use hoody_state_workspace::{assert_clean, container, furnish};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A clock that is moved by hand, and stands still for the upkeep.
#[derive(Clone, Default)]
struct ByHand(Arc<std::sync::atomic::AtomicI64>);

impl hoody_state::clock::Clock for ByHand {
    fn now(&self) -> hoody_state::jiff::Timestamp {
        let ours = std::thread::current().name() != Some("upkeep");
        hoody_state::jiff::Timestamp::from_second(if ours { self.0.load(Ordering::SeqCst) } else { 0 }).unwrap()
    }
}

#[test]
fn the_expiry_looks_again_at_each_snapshot_before_it_deletes_it() {
    let (at, clock) = (At::default(), ByHand::default());
    let builder = HostBuilder::new(None, Arc::new(MemoryStore::new()), Arc::new(MemoryFreezer::new()), Arc::new(MemoryRuntime::new())).unwrap();
    let h = builder.hook(Box::new(at.clone())).clock(Arc::new(clock.clone())).open().unwrap();
    let p = furnish(&h);
    let me = Caller::default();
    let time = |s| Some(hoody_state::jiff::Timestamp::from_second(s).unwrap());
    let all: Vec<_> = (0..3).map(|n| container(&h, &p, &format!("dev{n}")).unwrap()).collect();
    for (n, c) in (0..).zip(&all) {
        h.create_snapshot(&me, c, rolling()).unwrap();
        patiently(|| h.set_snapshot_expiry(&me, c, "rolling", time(100 + n)));
    }
    let (host, ids, once) = (h.clone(), all.clone(), AtomicBool::new(false));
    at.set(move |s| {
        if s == "snapshot.delete:intent" && !once.swap(true, Ordering::SeqCst) {
            host.set_snapshot_expiry(&Caller::default(), &ids[1], "rolling", Some(hoody_state::jiff::Timestamp::from_second(500).unwrap()))?;
            host.create_snapshot(&Caller::default(), &ids[2], rolling())?;
        }
        Ok(())
    });
    clock.0.store(200, Ordering::SeqCst);
    h.expire_due().unwrap();
    let left: Vec<Vec<String>> = all.iter().map(|c| h.snapshots(c).unwrap().snapshots.iter().map(|s| s.name.to_string()).collect()).collect();
    assert_eq!(left, [vec![], vec!["rolling".to_owned()], vec!["rolling-2".to_owned()]]);
    assert_clean(&h, "after expiries");
}
