//! Cases of what only some volumes hold.

use super::{Harness, container, named, op};
use crate::snapshot::{Exclusive, ExclusiveQuery, Volume};
use crate::units::{Bytes, Generation};

const MIB: usize = 1 << 20;

fn ask(h: &dyn Harness, volumes: &[(Volume, Generation)], likely: &[Volume]) -> Option<Exclusive> {
    let likely: Vec<_> = likely.iter().map(|v| (v.clone(), Generation(0))).collect();
    h.store().exclusive(&ExclusiveQuery { volumes, likely: &likely, stop: &|| false }).unwrap()
}

/// `exclusive` counts what comes back with a deletion, whatever is named as likely, and its witnesses notice what changes the answer. A store may say that it
/// does not know.
pub fn what_only_one_volume_holds_is_counted(h: &dyn Harness) {
    let s = h.store();
    let (c, live) = container(h);
    h.write(&live, "old", &vec![1; 2 * MIB]).unwrap();
    let first = s.snapshot(&live, &named(&c, "a"), &op()).unwrap();
    h.write(&live, "new", &vec![2; 3 * MIB]).unwrap();
    s.snapshot(&live, &named(&c, "b"), &op()).unwrap();
    let b = [(named(&c, "b"), first.created)];
    let Some(shared) = ask(h, &b, &[]) else { return };
    assert_eq!(shared.bytes, Bytes(0), "the live volume has it too");
    assert_eq!(ask(h, &b, std::slice::from_ref(&live)).unwrap().bytes, Bytes(0));
    let holds = |e: &Exclusive| e.witnesses.iter().all(|w| s.generation_of(w.volume).unwrap() == Some(w.generation));
    assert!(holds(&shared));
    h.remove(&live, "new").unwrap();
    // A snapshot writes out what was changed, and holds none of it.
    s.snapshot(&live, &named(&c, "c"), &op()).unwrap();
    assert!(!holds(&shared), "what held the data has changed");
    for likely in [vec![], vec![live.clone(), named(&c, "a"), named(&c, "gone")]] {
        assert_eq!(ask(h, &b, &likely).unwrap().bytes, Bytes::mib(3));
    }
    assert_eq!(ask(h, &[(named(&c, "b"), Generation(0))], &[]).unwrap().bytes, Bytes::mib(3), "what is older is held by others");
    // A copy holds it, until it is deleted.
    let copy = named(&c, "copy");
    s.snapshot(&named(&c, "b"), &copy, &op()).unwrap();
    let held = ask(h, &b, &[]).unwrap();
    assert_eq!(held.bytes, Bytes(0));
    let both = [(named(&c, "b"), Generation(0)), (copy.clone(), Generation(0))];
    assert_eq!(ask(h, &both, &[]).unwrap().bytes, Bytes::mib(3), "deleted together, it comes back once");
    s.delete(&copy).unwrap();
    assert_eq!(ask(h, &b, &[]).unwrap().bytes, Bytes::mib(3));
    assert!(!holds(&held), "a witness is gone");
    // Whoever gives up gets no figure.
    let given_up = s.exclusive(&ExclusiveQuery { volumes: &b, likely: &[], stop: &|| true }).unwrap();
    assert!(given_up.is_none_or(|e| e.bytes == Bytes::mib(3)));
}
