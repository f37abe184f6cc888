//! The contract of a [`ShareMount`], for any backend: run it on yours.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

use super::{Receiver, ShareMount, Source};
use crate::Code;

/// What a test needs of a backend.
pub trait Harness {
    /// The backend.
    fn shares(&self) -> &dyn ShareMount;
    /// A running receiver that sees nothing yet.
    fn receiver(&self) -> Receiver;
    /// A directory that is there.
    fn source(&self, name: &str, read_only: bool) -> Source;
    /// One that is not.
    fn missing(&self) -> Source;
}

/// Everything below.
pub fn run(h: &dyn Harness) {
    what_is_attached_is_seen_until_it_is_detached(h);
    a_name_is_exchanged(h);
    a_missing_source_is_said(h);
    what_is_seen_in_another_way_is_refused(h);
}

/// Guarantee 3.
pub fn what_is_attached_is_seen_until_it_is_detached(h: &dyn Harness) {
    let (s, r) = (h.shares(), h.receiver());
    assert!(s.attached(&r).unwrap().is_empty());
    for (name, read_only) in [("a", true), ("b", false)] {
        let tree = s.open(&h.source(name, read_only)).unwrap();
        assert_eq!(tree.identity.read_only, read_only);
        s.attach(&r, name, &tree).unwrap();
        assert_eq!(s.attached(&r).unwrap()[name], tree.identity);
    }
    assert_eq!(s.attached(&r).unwrap().len(), 2);
    s.detach(&r, "a").unwrap();
    s.detach(&r, "a").unwrap();
    s.detach(&r, "never").unwrap();
    assert_eq!(s.attached(&r).unwrap().into_keys().collect::<Vec<_>>(), ["b"]);
    s.detach(&r, "b").unwrap();
}

/// A second attach under a name takes the place of the first.
pub fn a_name_is_exchanged(h: &dyn Harness) {
    let (s, r) = (h.shares(), h.receiver());
    s.attach(&r, "x", &s.open(&h.source("a", true)).unwrap()).unwrap();
    let tree = s.open(&h.source("b", true)).unwrap();
    s.attach(&r, "x", &tree).unwrap();
    let seen = s.attached(&r).unwrap();
    assert_eq!((seen.len(), seen["x"]), (1, tree.identity));
    s.detach(&r, "x").unwrap();
    assert!(s.attached(&r).unwrap().is_empty());
}

/// `share_source_missing`.
pub fn a_missing_source_is_said(h: &dyn Harness) {
    assert_eq!(h.shares().open(&h.missing()).unwrap_err().code(), Code::ShareSourceMissing);
}

/// `share_source_refused`.
pub fn what_is_seen_in_another_way_is_refused(h: &dyn Harness) {
    let source = h.source("a", false);
    let refused = |s: Source| assert_eq!(h.shares().open(&s).unwrap_err().code(), Code::ShareSourceRefused, "{s:?}");
    refused(Source { not_within: vec!["a".into()], ..source.clone() });
    refused(Source { not_above: vec!["a".into()], ..source.clone() });
    refused(Source { path: "".into(), not_above: vec!["never".into(), "a".into()], ..source.clone() });
    for other in ["b", "never"] {
        h.shares().open(&Source { not_within: vec![other.into()], not_above: vec![other.into()], ..source.clone() }).unwrap();
    }
}
