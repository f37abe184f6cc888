//! Two aliases that reduce to one canonical name found the same snapshot.

use crate::support::aliased;
use hoody_state::Caller;
use hoody_state_workspace::{MemoryWorld, container, furnish};

#[test]
fn aliases_that_reduce_to_one_canonical_name_find_their_own_snapshots() {
    let w = MemoryWorld::new();
    let h = w.host();
    let c = container(&h, &furnish(&h), "dev").unwrap();
    let (dotted, plain) = (aliased(&h, &c, "v1.0"), aliased(&h, &c, "v10"));
    assert_ne!(dotted.name, plain.name);
    assert_eq!(h.snapshot(&c, "v1.0").unwrap().snapshot.name, dotted.name);
    assert_eq!(h.snapshot(&c, "v10").unwrap().snapshot.name, plain.name);
    // A canonical name is never made that another snapshot has as its alias.
    aliased(&h, &c, "x");
    h.rename_snapshot(&Caller::default(), &c, "x", Some("y".into())).unwrap();
    assert_eq!(aliased(&h, &c, ".y.").name.as_str(), "y-2");
}
