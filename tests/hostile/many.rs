//! A thousand snapshots.

use super::me;
use hoody_state::model::RestoreOptions;
use hoody_state_workspace::{RealHost, assert_clean, at_rest, container, project, snapshot};
use std::time::{Duration, Instant};

#[test]
fn a_thousand_snapshots_are_listed_restored_and_deleted() {
    let real = RealHost::new("h-many");
    let h = real.host();
    let c = container(h, &project(h, "p"), "dev").unwrap();
    let began = Instant::now();
    let mut took = Vec::new();
    for n in 0..1000 {
        std::fs::write(real.live(&c).join("n"), n.to_string()).unwrap();
        let t = Instant::now();
        snapshot(h, &c, &format!("s{n}")).unwrap();
        took.push(t.elapsed());
    }
    let made = began.elapsed();
    let median = |t: &[Duration]| {
        let mut t = t.to_vec();
        t.sort();
        t[t.len() / 2]
    };
    let (first, last) = (median(&took[..100]), median(&took[900..]));
    assert!(last < first * 5 + Duration::from_millis(20), "the last hundred take {last:?}, the first {first:?}");
    let t = Instant::now();
    let list = h.snapshots(&c).unwrap();
    let listed = t.elapsed();
    assert_eq!((list.snapshot_count, list.snapshots.len()), (1000, 1000));
    assert!(listed < Duration::from_secs(1), "a list takes {listed:?}");
    let t = Instant::now();
    h.restore(&me(), &c, "s7", RestoreOptions::default()).unwrap();
    let restored = t.elapsed();
    assert_eq!(std::fs::read_to_string(real.live(&c).join("n")).unwrap(), "7");
    let t = Instant::now();
    h.delete_snapshot(&me(), &c, "s500").unwrap();
    let deleted = t.elapsed();
    assert_eq!(h.snapshot(&c, "s501").unwrap().snapshot.parent.unwrap().as_str(), "s499");
    let t = Instant::now();
    h.delete_container(&me(), &c).unwrap();
    let answered = t.elapsed();
    assert!(answered < Duration::from_secs(2), "a delete is answered after {answered:?}");
    at_rest(h);
    let gone = t.elapsed();
    assert!(h.container(&c).is_err());
    assert_clean(h, "after a thousand snapshots");
    println!("1000 snapshots in {made:?} (median {first:?}, then {last:?}); list {listed:?}, restore {restored:?}, delete one {deleted:?}, all {gone:?}");
}
