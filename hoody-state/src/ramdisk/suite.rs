//! The contract of [`RamDisks`], for any backend: run it on yours.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

use super::{Filled, RamDisks};
use crate::units::Bytes;

/// What a test needs of a backend.
pub trait Harness {
    /// The backend, without any disk.
    fn disks(&self) -> &dyn RamDisks;
    /// Another object for the same disks, as the next process has one.
    fn again(&self) -> Box<dyn RamDisks + '_>;
}

/// Everything below.
pub fn run(h: &dyn Harness) {
    a_disk_is_there_until_it_is_removed(h);
    a_disk_is_what_it_was_for_the_next_process(h);
    a_full_disk_refuses_and_keeps_its_size(h);
    a_name_that_is_no_name_is_refused(h);
}

/// Guarantee 3: each call may be repeated.
pub fn a_disk_is_there_until_it_is_removed(h: &dyn Harness) {
    let d = h.disks();
    assert_eq!((d.filled("a").unwrap(), d.list().unwrap().len()), (None, 0));
    for _ in 0..2 {
        d.ensure("a", Bytes::mib(8)).unwrap();
        assert_eq!(d.filled("a").unwrap(), Some(Filled { used: Bytes(0), size: Bytes::mib(8) }));
    }
    d.ensure("b", Bytes::mib(1)).unwrap();
    let mut names = d.list().unwrap();
    names.sort();
    assert_eq!(names, ["a", "b"]);
    for name in ["a", "a", "b", "never"] {
        d.remove(name).unwrap();
        assert_eq!(d.filled(name).unwrap(), None);
    }
    assert!(d.list().unwrap().is_empty());
}

/// Guarantee 2, and a new size.
pub fn a_disk_is_what_it_was_for_the_next_process(h: &dyn Harness) {
    let source = h.disks().ensure("a", Bytes::mib(8)).unwrap();
    if let Some(at) = source.as_ref().and_then(|s| s.path()) {
        std::fs::write(at.join("f"), vec![1; 4 << 20]).unwrap();
    }
    let next = h.again();
    assert_eq!(next.list().unwrap(), ["a"]);
    assert_eq!(next.ensure("a", Bytes::mib(16)).unwrap().as_ref().and_then(|s| s.path()), source.as_ref().and_then(|s| s.path()));
    let filled = next.filled("a").unwrap().unwrap();
    assert_eq!(filled.size, Bytes::mib(16));
    assert!(source.is_none() || filled.used >= Bytes::mib(4), "{filled:?}");
    next.remove("a").unwrap();
    assert!(h.disks().list().unwrap().is_empty());
}

/// Guarantee 1, for backends with files.
pub fn a_full_disk_refuses_and_keeps_its_size(h: &dyn Harness) {
    let d = h.disks();
    let source = d.ensure("a", Bytes::mib(8)).unwrap();
    if let Some(at) = source.as_ref().and_then(|s| s.path()) {
        std::fs::write(at.join("f"), vec![1; 4 << 20]).unwrap();
        d.ensure("a", Bytes::mib(1)).unwrap();
        assert_eq!(d.filled("a").unwrap().unwrap().size, Bytes::mib(8), "never less than it holds");
        let full = std::fs::write(at.join("g"), vec![1; 16 << 20]).unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    }
    d.remove("a").unwrap();
}

/// A name is one part of a path.
pub fn a_name_that_is_no_name_is_refused(h: &dyn Harness) {
    for name in ["", ".", "..", "../x", "a/b"] {
        assert!(h.disks().ensure(name, Bytes::mib(1)).is_err(), "{name:?}");
    }
    assert!(h.disks().list().unwrap().is_empty());
}
