//! A snapshot that replaced its own parent counted its size from the replaced one.

use crate::support::rolling;
use hoody_state::Caller;
use hoody_state_workspace::{MemoryWorld, container, furnish, snapshot};

#[test]
fn a_snapshot_that_replaces_its_parent_is_measured_from_the_parent_of_that() {
    let w = MemoryWorld::new();
    let h = w.host();
    let c = container(&h, &furnish(&h), "dev").unwrap();
    snapshot(&h, &c, "base").unwrap();
    for n in 0..3 {
        w.write(&c, &format!("file{n}"), "12345");
        let s = h.create_snapshot(&Caller::default(), &c, rolling()).unwrap().snapshot;
        assert_eq!(s.parent.unwrap().as_str(), "base");
        assert_eq!(s.size.0, 5 * (n + 1), "all that was written since `base` is its own");
    }
    assert_eq!(h.snapshots(&c).unwrap().snapshot_count, 2);
}
