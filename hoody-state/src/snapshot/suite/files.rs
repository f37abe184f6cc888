//! Cases of [`StagedFiles`](crate::snapshot::StagedFiles).

use super::{Harness, container, holds, lacks, named, op};
use crate::Code;
use crate::error::{Error, Result};
use crate::id::OperationId;
use crate::snapshot::{FilesRequest, StagedFiles, Volume};
use crate::tree::TreePath;
use crate::tree::staged::Options;

/// Begins to bring files from `from` into `into`, and lets `f` go on.
fn staged<T>(h: &dyn Harness, from: &Volume, into: &Volume, staging: &OperationId, options: Options, f: impl FnOnce(&mut dyn StagedFiles) -> T) -> Result<T> {
    let allow = |path: &TreePath| if path.as_bytes() == b"forbidden" { Err(Error::new(Code::NotInVolume, "not there")) } else { Ok(()) };
    let go_on = || Ok(());
    let request = FilesRequest { from, into, staging, options, allow: &allow, go_on: &go_on };
    Ok(f(&mut *h.store().stage_files(request)?))
}

fn path(text: &str) -> TreePath {
    TreePath::new(text.as_bytes()).unwrap()
}

/// Staging changes nothing; placing brings the file, and nothing else.
pub fn files_are_placed_when_they_are_complete(h: &dyn Harness) {
    let (c, live) = container(h);
    let (snapshot, op) = (named(&c, "s"), op());
    for name in ["f", "g", "gone", "kept"] {
        h.write(&live, name, b"old").unwrap();
    }
    h.store().snapshot(&live, &snapshot, &op).unwrap();
    h.write(&live, "f", b"new").unwrap();
    h.write(&live, "g", b"new").unwrap();
    h.write(&live, "kept", b"new").unwrap();
    h.remove(&live, "gone").unwrap();
    staged(h, &snapshot, &live, &op, Options::default(), |files| {
        let numbers: Vec<usize> = ["f", "gone"].iter().map(|name| files.stage(&path(name)).unwrap()).collect();
        holds(h, &live, "f", "new");
        lacks(h, &live, "gone");
        numbers.into_iter().for_each(|n| files.place(n).unwrap());
    })
    .unwrap();
    h.store().settle_files(&live, &op).unwrap();
    for (name, content) in [("f", "old"), ("gone", "old"), ("g", "new"), ("kept", "new")] {
        holds(h, &live, name, content);
    }
    holds(h, &snapshot, "f", "old");
}

/// `file_not_found`, unless names that are new are deleted; `volume_not_found`; what `allow` says.
pub fn files_that_are_not_in_the_source_are_reported(h: &dyn Harness) {
    let (c, live) = container(h);
    let (snapshot, op) = (named(&c, "s"), op());
    h.write(&live, "forbidden", b"old").unwrap();
    h.store().snapshot(&live, &snapshot, &op).unwrap();
    h.write(&live, "new", b"new").unwrap();
    let stage =
        |name: &str, options: Options| staged(h, &snapshot, &live, &op, options, |files| files.stage(&path(name)).and_then(|n| files.place(n))).unwrap();
    let code = |done: Result<()>| done.unwrap_err().code();
    let delete = || Options { delete_new: true, ..Options::default() };
    assert_eq!(code(stage("new", Options::default())), Code::FileNotFound);
    h.store().settle_files(&live, &op).unwrap();
    assert_eq!(code(stage("forbidden", Options::default())), Code::NotInVolume);
    h.store().settle_files(&live, &op).unwrap();
    assert_eq!(code(stage("nowhere", delete())), Code::FileNotFound);
    h.store().settle_files(&live, &op).unwrap();
    holds(h, &live, "new", "new");
    stage("new", delete()).unwrap();
    lacks(h, &live, "new");
    h.store().settle_files(&live, &op).unwrap();
    let missing = Volume::Next(c);
    assert_eq!(staged(h, &missing, &live, &op, Options::default(), |_| ()).unwrap_err().code(), Code::VolumeNotFound);
    assert_eq!(staged(h, &snapshot, &missing, &op, Options::default(), |_| ()).unwrap_err().code(), Code::VolumeNotFound);
    h.store().settle_files(&missing, &op).unwrap();
}

/// What was staged and not placed leaves nothing once it is settled, which may be repeated.
pub fn what_is_staged_is_forgotten_by_settling(h: &dyn Harness) {
    let (c, live) = container(h);
    let (snapshot, op) = (named(&c, "s"), op());
    h.write(&live, "f", b"old").unwrap();
    h.store().snapshot(&live, &snapshot, &op).unwrap();
    h.write(&live, "f", b"new").unwrap();
    staged(h, &snapshot, &live, &op, Options::default(), |files| files.stage(&path("f")).unwrap()).unwrap();
    for _ in 0..2 {
        h.store().settle_files(&live, &op).unwrap();
        holds(h, &live, "f", "new");
    }
    // Nothing is left of it: the same can be begun again under the same name.
    staged(h, &snapshot, &live, &op, Options::default(), |files| files.stage(&path("f")).and_then(|n| files.place(n)).unwrap()).unwrap();
    holds(h, &live, "f", "old");
    h.store().settle_files(&live, &op).unwrap();
}
