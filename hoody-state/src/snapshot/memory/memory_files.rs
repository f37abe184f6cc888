//! Names of one volume that are brought into another: paths of a map. What is staged is a map too, and nothing is left of it after a crash.

use super::{File, MemoryStore};
use crate::error::{Code, Error, Result};
use crate::snapshot::{FilesRequest, SnapshotStore, StagedFiles, Volume};
use crate::tree::TreePath;
use crate::units::Generation;
use std::collections::BTreeMap;

/// What a path is to be.
struct Ready {
    /// The path in the volume, and everything in it.
    place: String,
    files: BTreeMap<String, File>,
    /// Names that are not among `files` go.
    replaces_all: bool,
}

struct Staged<'a> {
    store: &'a MemoryStore,
    request: FilesRequest<'a>,
    ready: Vec<Ready>,
}

pub(super) fn begin<'a>(store: &'a MemoryStore, request: FilesRequest<'a>) -> Result<Box<dyn StagedFiles + 'a>> {
    for volume in [request.from, request.into] {
        if store.info(volume)?.is_none() {
            return Err(super::not_found(volume));
        }
    }
    Ok(Box::new(Staged { store, request, ready: Vec::new() }))
}

fn text(path: &TreePath) -> Result<String> {
    let text = std::str::from_utf8(path.as_bytes());
    text.map(str::to_owned).map_err(|_| Error::new(Code::FilesUnsupported, "paths of a volume in memory are UTF-8"))
}

/// Whether `path` is `dir` or in it.
fn is_at(path: &str, dir: &str) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl MemoryStore {
    /// Removes and writes several files of a volume in one step.
    fn replace(&self, volume: &Volume, removed: &dyn Fn(&str) -> bool, files: BTreeMap<String, File>) -> Result<()> {
        let mut s = self.state();
        let now = Generation(s.generation);
        let entry = s.writable(volume)?;
        entry.files.retain(|path, _| !removed(path));
        entry.files.extend(files.into_iter().map(|(path, f)| (path, File { data: f.data, written: now })));
        entry.generation = now;
        Ok(())
    }
}

impl StagedFiles for Staged<'_> {
    fn stage(&mut self, path: &TreePath) -> Result<usize> {
        let FilesRequest { from, into, options, allow, go_on, .. } = &self.request;
        go_on()?;
        let (_, name) = path.split().ok_or_else(|| Error::new(Code::InvalidPath, "/ cannot be restored by its path: restore the snapshot"))?;
        let to = options.to.as_ref().map_or_else(|| path.clone(), |dir| dir.join(name));
        allow(&to)?;
        let (path, place) = (text(path)?, text(&to)?);
        let s = self.store.state();
        let found = s.get(from)?.files.iter().filter(|(p, _)| is_at(p, &path));
        let files: BTreeMap<String, File> = found.map(|(p, f)| (format!("{place}{}", &p[path.len()..]), f.clone())).collect();
        let present = s.get(into)?.files.keys().any(|p| is_at(p, &place));
        if files.is_empty() && !(options.delete_new && present && options.to.is_none()) {
            return Err(Error::new(Code::FileNotFound, format!("there is nothing at /{path} in the snapshot")));
        }
        self.ready.push(Ready { place, files, replaces_all: options.delete_new });
        Ok(self.ready.len() - 1)
    }

    fn place(&mut self, number: usize) -> Result<()> {
        let ready = self.ready.get(number).ok_or_else(|| Error::internal("a path that was not staged cannot be placed"))?;
        let Ready { place, files, replaces_all } = ready;
        // A file that takes the place of a directory, or a directory that of a file.
        let is_file = files.contains_key(place);
        let removed = |p: &str| is_at(p, place) && (*replaces_all || is_file || p == place);
        self.store.replace(self.request.into, &removed, files.clone())
    }
}
