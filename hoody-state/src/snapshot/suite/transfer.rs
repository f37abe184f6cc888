//! Cases of sending and receiving snapshots.

use super::{Harness, container, holds, lacks, named, op};
use crate::Code;
use crate::snapshot::Volume;

/// Bytes of `volume` as it is sent.
fn sent(h: &dyn Harness, volume: &Volume, base: Option<&Volume>) -> Vec<u8> {
    let mut out = Vec::new();
    h.store().send(volume, base, &mut out).unwrap();
    out
}

/// What is sent is received complete, with the identity of what was sent, and an increment is smaller than a full stream.
pub fn sent_snapshots_are_received(h: &dyn Harness) {
    let (a, live) = container(h);
    let (b, _) = container(h);
    h.write(&live, "big", &vec![7; 300_000]).unwrap();
    h.write(&live, "small", b"one").unwrap();
    let (s1, s2) = (named(&a, "s1"), named(&a, "s2"));
    h.store().snapshot(&live, &s1, &op()).unwrap();
    h.write(&live, "small", b"two").unwrap();
    h.write(&live, "new", b"three").unwrap();
    h.remove(&live, "big").unwrap();
    h.store().snapshot(&live, &s2, &op()).unwrap();

    let full = sent(h, &s1, None);
    let (r1, r2) = (named(&b, "r1"), named(&b, "r2"));
    let info = h.store().receive(&r1, None, &op(), &mut &full[..]).unwrap();
    assert!(info.read_only);
    holds(h, &r1, "small", "one");
    assert_eq!(h.store().identity(&r1).unwrap(), h.store().identity(&s1).unwrap());
    assert_ne!(h.store().identity(&s1).unwrap(), h.store().identity(&s2).unwrap());

    let increment = sent(h, &s2, Some(&s1));
    assert!(increment.len() < full.len() / 4, "{} of {}", increment.len(), full.len());
    h.store().receive(&r2, Some(&r1), &op(), &mut &increment[..]).unwrap();
    holds(h, &r2, "small", "two");
    holds(h, &r2, "new", "three");
    lacks(h, &r2, "big");
    holds(h, &r1, "small", "one");

    // A copy of what was received is what was sent, and what was received can be sent on.
    let copy = named(&b, "copy");
    h.store().snapshot(&r2, &copy, &op()).unwrap();
    assert_eq!(h.store().identity(&copy).unwrap(), h.store().identity(&s2).unwrap());
    let (c, _) = container(h);
    let onward = named(&c, "onward");
    h.store().receive(&onward, Some(&s1), &op(), &mut &sent(h, &copy, Some(&r1))[..]).unwrap();
    holds(h, &onward, "small", "two");
}

/// Writable volumes are not sent, and missing ones are reported.
pub fn only_read_only_volumes_are_sent(h: &dyn Harness) {
    let (c, live) = container(h);
    let e = h.store().send(&live, None, &mut Vec::new()).unwrap_err();
    assert_eq!(e.code(), Code::VolumeWritable);
    assert!(h.store().send(&named(&c, "none"), None, &mut Vec::new()).unwrap_err().is_not_found());
}

/// A stream that is cut, changed or on another base leaves nothing behind, and the volume can be received afterwards.
pub fn incomplete_streams_leave_nothing(h: &dyn Harness) {
    let (a, live) = container(h);
    let (b, _) = container(h);
    h.write(&live, "f", &vec![3; 20_000]).unwrap();
    let (s1, s2) = (named(&a, "s1"), named(&a, "s2"));
    h.store().snapshot(&live, &s1, &op()).unwrap();
    h.write(&live, "g", &vec![4; 20_000]).unwrap();
    h.store().snapshot(&live, &s2, &op()).unwrap();
    let full = sent(h, &s2, None);
    let to = named(&b, "r");
    let fails = |bytes: &[u8], base: Option<&Volume>, codes: &[Code]| {
        let staging = op();
        let e = h.store().receive(&to, base, &staging, &mut &bytes[..]).unwrap_err();
        assert!(codes.contains(&e.code()), "{e:?}");
        assert!(h.store().info(&to).unwrap().is_none());
        h.store().delete(&Volume::Staging(staging)).unwrap();
    };
    for i in 1..20 {
        fails(&full[..full.len() * i / 20], None, &[Code::TransferCut]);
    }
    fails(&full[..full.len() - 1], None, &[Code::TransferCut]);
    for i in 0..10 {
        let mut bad = full.clone();
        bad[full.len() * i / 10] ^= 1;
        fails(&bad, None, &[Code::StreamCorrupt, Code::StreamRefused, Code::TransferCut, Code::BaseMissing]);
    }
    let increment = sent(h, &s2, Some(&s1));
    fails(&increment, None, &[Code::BaseMissing]);
    fails(&increment, Some(&s2), &[Code::BaseMissing]);
    h.store().receive(&to, None, &op(), &mut &full[..]).unwrap();
    let e = h.store().receive(&to, None, &op(), &mut &full[..]).unwrap_err();
    assert_eq!(e.code(), Code::VolumeExists);
    assert_eq!(h.store().list(Some(&b)).unwrap().len(), 2, "only what it is and its live volume");
}

/// Two snapshots with nothing between them do not differ.
pub fn a_difference_is_seen(h: &dyn Harness) {
    let (c, live) = container(h);
    h.write(&live, "f", b"one").unwrap();
    let [s1, s2, s3] = ["s1", "s2", "s3"].map(|n| named(&c, n));
    h.store().snapshot(&live, &s1, &op()).unwrap();
    h.store().snapshot(&live, &s2, &op()).unwrap();
    h.write(&live, "f", b"two").unwrap();
    h.store().snapshot(&live, &s3, &op()).unwrap();
    assert!(!h.store().differs(&s1, &s2).unwrap());
    assert!(h.store().differs(&s2, &s3).unwrap());
}
