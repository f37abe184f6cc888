//! Volumes in memory: the same semantics without a file system, for tests of what stands on top and for models.
//!
//! A volume's content is a map from paths to bytes; copies share the bytes, and room is counted once for what is shared. There are no nested volumes.

use crate::diff::flat;
use crate::diff::options::{Compared, Method, Options, Sink};
use crate::error::{Code, Error, Result};
use crate::id::{ContainerId, OperationId};
use crate::snapshot::{Dedupe, Deleted, Exclusive, ExclusiveQuery, Mergeable, SnapshotStore, Space, Transferable, Volume, VolumeInfo, VolumePair};
use crate::units::{Bytes, Generation, VolumeId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::{Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use uuid::Uuid;

mod homes;
#[cfg(feature = "btrfs")]
mod memory_files;
mod merging;
mod sharing;

/// A volume's content, as [`MemoryStore::content`] gives it.
pub type Content = BTreeMap<String, Vec<u8>>;

#[derive(Debug, Clone)]
struct File {
    data: Arc<Vec<u8>>,
    written: Generation,
}

#[derive(Debug, Clone)]
struct Entry {
    id: VolumeId,
    generation: Generation,
    created: Generation,
    read_only: bool,
    /// Its own, or that of what it was received from.
    identity: Uuid,
    received: bool,
    files: BTreeMap<String, File>,
}

impl Entry {
    fn info(&self) -> VolumeInfo {
        VolumeInfo { id: self.id, generation: self.generation, created: self.created, read_only: self.read_only, nested: 0 }
    }
}

#[derive(Debug, Default)]
struct State {
    volumes: BTreeMap<Volume, Entry>,
    homes: BTreeSet<ContainerId>,
    trash: BTreeMap<OperationId, BTreeMap<Volume, Entry>>,
    generation: u64,
    last_id: u64,
    capacity: Bytes,
    refuses_increments: bool,
}

/// A pool in memory.
#[derive(Debug)]
pub struct MemoryStore(Mutex<State>);

impl Default for MemoryStore {
    fn default() -> Self {
        Self::with_capacity(Bytes::gib(1))
    }
}

impl MemoryStore {
    /// An empty pool of 1 GiB.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty pool that holds `capacity` bytes of file data.
    #[must_use]
    pub fn with_capacity(capacity: Bytes) -> Self {
        MemoryStore(Mutex::new(State { capacity, generation: 1, last_id: 255, ..State::default() }))
    }

    /// Makes the pool larger, or so small that it is full.
    pub fn set_capacity(&self, capacity: Bytes) {
        self.state().capacity = capacity;
    }

    /// Refuses increments that are received, as a store does that does not know a command of the stream.
    pub fn refuse_increments(&self) {
        self.state().refuses_increments = true;
    }

    /// Writes a whole file. Errors: `volume_not_found`, `volume_read_only`, `pool_full`.
    pub fn write(&self, volume: &Volume, path: &str, data: &[u8]) -> Result<()> {
        let mut s = self.state();
        let (free, now) = (s.free(), Generation(s.generation));
        let entry = s.writable(volume)?;
        if data.len() as u64 > free.0 {
            return Err(Error::new(Code::PoolFull, format!("write {path}: {} needed, {free} free", Bytes(data.len() as u64))));
        }
        entry.files.insert(path.to_owned(), File { data: Arc::new(data.to_vec()), written: now });
        entry.generation = now;
        s.generation += 1;
        Ok(())
    }

    /// Reads a whole file, if it is there. Error: `volume_not_found`.
    pub fn read(&self, volume: &Volume, path: &str) -> Result<Option<Vec<u8>>> {
        let s = self.state();
        Ok(s.get(volume)?.files.get(path).map(|f| f.data.to_vec()))
    }

    /// Removes a file; whether it was there. Errors: `volume_not_found`, `volume_read_only`.
    pub fn remove(&self, volume: &Volume, path: &str) -> Result<bool> {
        let mut s = self.state();
        let now = Generation(s.generation);
        let entry = s.writable(volume)?;
        entry.generation = now;
        let removed = entry.files.remove(path).is_some();
        s.generation += 1;
        Ok(removed)
    }

    /// All files of a volume, to compare. Error: `volume_not_found`.
    pub fn content(&self, volume: &Volume) -> Result<Content> {
        Ok(self.state().get(volume)?.files.iter().map(|(k, f)| (k.clone(), f.data.to_vec())).collect())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No method leaves the state half-changed where it could panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn copy(&self, from: &Volume, to: &Volume, read_only: bool) -> Result<VolumeInfo> {
        let mut s = self.state();
        let source = s.get(from)?.clone();
        let info = s.add(to, read_only, source.files)?;
        // As BTRFS has it: a sealed copy of what was received is that still.
        if let Some(copy) = s.volumes.get_mut(to).filter(|_| read_only && source.received) {
            (copy.identity, copy.received) = (source.identity, true);
        }
        Ok(info)
    }
}

fn new_identity() -> Result<Uuid> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|e| Error::internal(format!("no random bytes: {e}")))?;
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid())
}

/// A volume as bytes: JSON behind its length and checksum. Data that the base has under the same path are left out.
#[derive(Serialize, Deserialize)]
struct Parcel {
    identity: Uuid,
    base: Option<Uuid>,
    files: Vec<(String, Option<Vec<u8>>)>,
}

impl State {
    fn get(&self, v: &Volume) -> Result<&Entry> {
        self.volumes.get(v).ok_or_else(|| not_found(v))
    }

    fn writable(&mut self, v: &Volume) -> Result<&mut Entry> {
        let entry = self.volumes.get_mut(v).ok_or_else(|| not_found(v))?;
        if entry.read_only { Err(read_only(v)) } else { Ok(entry) }
    }

    fn add(&mut self, v: &Volume, read_only: bool, files: BTreeMap<String, File>) -> Result<VolumeInfo> {
        if self.volumes.contains_key(v) {
            return Err(exists(v));
        }
        if let Some(c) = container_of(v) {
            self.homes.insert(c.clone());
        }
        self.last_id += 1;
        let now = Generation(self.generation);
        let entry = Entry { id: VolumeId(self.last_id), generation: now, created: now, read_only, identity: new_identity()?, received: false, files };
        let info = entry.info();
        self.volumes.insert(v.clone(), entry);
        // As on disk: what comes next belongs to another transaction.
        self.generation += 1;
        Ok(info)
    }

    fn used(&self) -> Bytes {
        let mut seen = HashSet::new();
        let entries = self.volumes.values().chain(self.trash.values().flat_map(BTreeMap::values));
        let files = entries.flat_map(|e| e.files.values());
        files.filter(|f| seen.insert(Arc::as_ptr(&f.data))).map(|f| Bytes(f.data.len() as u64)).sum()
    }

    fn free(&self) -> Bytes {
        self.capacity - self.used()
    }
}

impl SnapshotStore for MemoryStore {
    fn create_home(&self, container: &ContainerId) -> Result<()> {
        self.state().homes.insert(container.clone());
        Ok(())
    }

    fn trash_home(&self, container: &ContainerId, op: &OperationId) -> Result<()> {
        self.state().trash_home(container, op);
        Ok(())
    }

    fn recover_home(&self, container: &ContainerId, op: &OperationId) -> Result<()> {
        self.state().recover_home(container, op)
    }

    fn empty_trash(&self, op: &OperationId, progress: &mut dyn FnMut(u64, u64)) -> Result<Deleted> {
        let gone = self.state().trash.remove(op).unwrap_or_default();
        for i in 1..=gone.len() {
            progress(i as u64, gone.len() as u64);
        }
        Ok(Deleted { volumes: gone.values().map(|e| e.id).collect() })
    }

    fn trash(&self) -> Result<Vec<OperationId>> {
        Ok(self.state().trash.keys().cloned().collect())
    }

    fn create(&self, volume: &Volume) -> Result<VolumeInfo> {
        self.state().add(volume, false, BTreeMap::new())
    }

    fn snapshot(&self, from: &Volume, to: &Volume, _staging: &OperationId) -> Result<VolumeInfo> {
        self.copy(from, to, true)
    }

    fn clone_volume(&self, from: &Volume, to: &Volume, _staging: &OperationId) -> Result<VolumeInfo> {
        self.copy(from, to, false)
    }

    fn exclusive(&self, query: &ExclusiveQuery<'_>) -> Result<Option<Exclusive>> {
        Ok(Some(sharing::exclusive(&self.state(), query)))
    }

    fn generation_of(&self, volume: VolumeId) -> Result<Option<Generation>> {
        Ok(self.state().volumes.values().find(|e| e.id == volume).map(|e| e.generation))
    }

    fn exchange(&self, a: &Volume, b: &Volume) -> Result<()> {
        let mut s = self.state();
        for v in [a, b] {
            if s.get(v)?.read_only {
                return Err(read_only(v));
            }
        }
        if let (Some(x), Some(y)) = (s.volumes.remove(a), s.volumes.remove(b)) {
            s.volumes.insert(a.clone(), y);
            s.volumes.insert(b.clone(), x);
        }
        Ok(())
    }

    fn seal(&self, from: &Volume, to: &Volume) -> Result<VolumeInfo> {
        let mut s = self.state();
        if from != to && s.volumes.contains_key(from) {
            if s.volumes.contains_key(to) {
                return Err(exists(to));
            }
            s.writable(from)?;
            if let Some(entry) = s.volumes.remove(from) {
                s.volumes.insert(to.clone(), entry);
            }
        }
        let entry = s.volumes.get_mut(to).ok_or_else(|| not_found(from))?;
        entry.read_only = true;
        Ok(entry.info())
    }

    fn delete(&self, volume: &Volume) -> Result<Deleted> {
        Ok(Deleted { volumes: self.state().volumes.remove(volume).map(|e| e.id).into_iter().collect() })
    }

    fn info(&self, volume: &Volume) -> Result<Option<VolumeInfo>> {
        Ok(self.state().volumes.get(volume).map(Entry::info))
    }

    fn list(&self, container: Option<&ContainerId>) -> Result<Vec<Volume>> {
        Ok(self.state().volumes.keys().filter(|v| container.is_none() || container_of(v) == container).cloned().collect())
    }

    fn delta(&self, volume: &Volume, since: Option<Generation>) -> Result<Bytes> {
        let s = self.state();
        let mut seen = HashSet::new();
        let files = s.get(volume)?.files.values().filter(|f| since.is_none_or(|g| f.written > g));
        Ok(files.filter(|f| seen.insert(Arc::as_ptr(&f.data))).map(|f| Bytes(f.data.len() as u64)).sum())
    }

    fn compare(&self, pairs: &[VolumePair<'_>], options: &Options<'_>, sink: Sink<'_>) -> Result<Compared> {
        let mut sides = [flat::Files::new(), flat::Files::new()];
        for pair in pairs {
            for (side, volume) in sides.iter_mut().zip([pair.old, pair.new]) {
                let files = volume.map(|v| Ok::<_, Error>(self.state().get(v)?.files.clone())).transpose()?.unwrap_or_default();
                let path = |p: &String| if pair.prefix.is_empty() { p.clone().into_bytes() } else { [pair.prefix, b"/", p.as_bytes()].concat() };
                side.extend(files.into_iter().map(|(p, f)| (path(&p), f.data)));
            }
        }
        let inodes = flat::compare(&sides[0], &sides[1], options, sink)?;
        Ok(Compared { method: Method::Changes, inodes })
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn reclaimed(&self, volume: VolumeId, _timeout: Duration) -> Result<bool> {
        Ok(!self.state().volumes.values().any(|e| e.id == volume))
    }

    fn space(&self) -> Result<Space> {
        let s = self.state();
        Ok(Space { total: s.capacity, used: s.used(), free: s.free(), ..Space::default() })
    }

    fn transfer(&self) -> Option<&dyn Transferable> {
        Some(self)
    }

    #[cfg(feature = "btrfs")]
    fn stage_files<'a>(&'a self, request: crate::snapshot::FilesRequest<'a>) -> Result<Box<dyn crate::snapshot::StagedFiles + 'a>> {
        memory_files::begin(self, request)
    }

    fn merging(&self) -> Option<&dyn Mergeable> {
        Some(self)
    }

    fn dedupe(&self) -> Option<&dyn Dedupe> {
        Some(self)
    }
}

impl Transferable for MemoryStore {
    fn claims_identity(&self, snapshot: &Volume) -> Result<bool> {
        Ok(self.state().get(snapshot).is_ok_and(|entry| entry.received))
    }

    fn identity(&self, volume: &Volume) -> Result<Option<Uuid>> {
        Ok(self.state().volumes.get(volume).map(|e| e.identity))
    }

    fn send(&self, volume: &Volume, base: Option<&Volume>, out: &mut dyn Write) -> Result<()> {
        let parcel = {
            let s = self.state();
            let entry = s.get(volume)?;
            if !entry.read_only {
                return Err(Error::new(Code::VolumeWritable, format!("{volume} can be written: take a snapshot and send that")));
            }
            let base = base.map(|b| s.get(b)).transpose()?;
            let same = |path: &str, f: &File| base.is_some_and(|b| b.files.get(path).is_some_and(|o| o.data == f.data));
            let files = entry.files.iter().map(|(p, f)| (p.clone(), (!same(p, f)).then(|| f.data.to_vec()))).collect();
            Parcel { identity: entry.identity, base: base.map(|b| b.identity), files }
        };
        let bytes = serde_json::to_vec(&parcel).map_err(|e| Error::internal(e.to_string()))?;
        let head = [(bytes.len() as u64).to_le_bytes().to_vec(), crc32c::crc32c(&bytes).to_le_bytes().to_vec()].concat();
        // In pieces, so that a cut may come anywhere.
        let pieces = std::iter::once(&head[..]).chain(bytes.chunks(512));
        pieces.into_iter().try_for_each(|c| out.write_all(c)).map_err(|e| Error::new(Code::TransferCut, format!("whoever received has gone: {e}")))
    }

    fn receive(&self, to: &Volume, base: Option<&Volume>, _staging: &OperationId, input: &mut dyn Read) -> Result<VolumeInfo> {
        let corrupt = || Error::new(Code::StreamCorrupt, "the stream from the other server is damaged; nothing of it was kept, try again");
        let mut read = |n: u64| {
            let mut b = Vec::new();
            let got = input.take(n).read_to_end(&mut b);
            match got {
                Ok(got) if got as u64 == n => Ok(b),
                _ => Err(Error::new(Code::TransferCut, "the stream from the other server broke off; nothing half-received was kept, try again")),
            }
        };
        let head = read(12)?;
        let (len, sum) = head.split_at(8);
        let bytes = read(len.try_into().map(u64::from_le_bytes).unwrap_or_default())?;
        if crc32c::crc32c(&bytes).to_le_bytes() != sum {
            return Err(corrupt());
        }
        let parcel: Parcel = serde_json::from_slice(&bytes).map_err(|_| corrupt())?;
        let mut s = self.state();
        if base.is_some() && s.refuses_increments {
            return Err(Error::new(Code::StreamRefused, "the stream from the other server was refused: increments are not taken here"));
        }
        let base = base.map(|b| s.get(b).cloned()).transpose()?;
        if parcel.base != base.as_ref().map(|b| b.identity) {
            return Err(Error::new(Code::BaseMissing, "the volume on which the stream is an increment is not here any more: begin again"));
        }
        let now = Generation(s.generation);
        let mut files = BTreeMap::new();
        for (path, data) in parcel.files {
            let file = match data {
                Some(data) => File { data: Arc::new(data), written: now },
                None => base.as_ref().and_then(|b| b.files.get(&path)).cloned().ok_or_else(corrupt)?,
            };
            files.insert(path, file);
        }
        let new: u64 = files.values().filter(|f| f.written == now).map(|f| f.data.len() as u64).sum();
        if new > s.free().0 {
            return Err(Error::new(Code::PoolFull, format!("{} needed, {} free", Bytes(new), s.free())));
        }
        let info = s.add(to, true, files)?;
        if let Some(entry) = s.volumes.get_mut(to) {
            (entry.identity, entry.received) = (parcel.identity, true);
        }
        Ok(info)
    }

    fn differs(&self, base: &Volume, volume: &Volume) -> Result<bool> {
        Ok(self.content(base)? != self.content(volume)?)
    }
}

fn container_of(v: &Volume) -> Option<&ContainerId> {
    match v {
        Volume::Live(c) | Volume::Next(c) | Volume::Snapshot(c, _) | Volume::SnapshotDatabases(c, _) | Volume::NextDatabases(c) => Some(c),
        Volume::Image(_) | Volume::Databases(_) | Volume::Staging(_) => None,
    }
}

fn not_found(v: &Volume) -> Error {
    Error::new(Code::VolumeNotFound, format!("there is no {v}"))
}

fn exists(v: &Volume) -> Error {
    Error::new(Code::VolumeExists, format!("{v} exists already"))
}

fn read_only(v: &Volume) -> Error {
    Error::new(Code::VolumeReadOnly, format!("{v} is read-only: make a clone of it"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::Kind;
    use crate::snapshot::suite::Harness;

    impl Harness for MemoryStore {
        fn store(&self) -> &dyn SnapshotStore {
            self
        }
        fn write(&self, volume: &Volume, path: &str, data: &[u8]) -> Result<()> {
            MemoryStore::write(self, volume, path, data)
        }
        fn read(&self, volume: &Volume, path: &str) -> Result<Option<Vec<u8>>> {
            MemoryStore::read(self, volume, path)
        }
        fn remove(&self, volume: &Volume, path: &str) -> Result<()> {
            MemoryStore::remove(self, volume, path).map(|_| ())
        }
    }

    crate::snapshot_suite!(MemoryStore::new());
    crate::transfer_suite!(MemoryStore::new());
    crate::staged_files_suite!(MemoryStore::new());

    #[test]
    fn a_full_pool_refuses_writes_and_takes_them_again_after_a_delete() {
        let store = MemoryStore::with_capacity(Bytes(10));
        let c = ContainerId::generate();
        let live = Volume::Live(c.clone());
        store.create(&live).unwrap();
        store.write(&live, "a", &[0; 8]).unwrap();
        let e = store.write(&live, "b", &[0; 8]).unwrap_err();
        assert_eq!((e.kind(), e.code()), (Kind::NoSpace, Code::PoolFull));
        let next = Volume::Next(c);
        store.clone_volume(&live, &next, &OperationId::generate()).unwrap();
        assert_eq!(store.space().unwrap().used, Bytes(8), "copies share");
        store.delete(&live).unwrap();
        store.delete(&next).unwrap();
        store.create(&live).unwrap();
        store.write(&live, "b", &[0; 8]).unwrap();
    }
}
