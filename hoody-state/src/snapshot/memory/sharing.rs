//! Who shares data in memory, and merging what is equal.

use super::{Entry, MemoryStore, State};
use crate::error::Result;
use crate::snapshot::{Dedupe, DedupeRequest, Deduped, Exclusive, ExclusiveQuery, Volume, Witness};
use crate::units::{Bytes, Generation, VolumeId};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// See [`crate::snapshot::SnapshotStore::exclusive`].
pub(super) fn exclusive(s: &State, query: &ExclusiveQuery<'_>) -> Exclusive {
    let own: Vec<&Entry> = query.volumes.iter().filter_map(|(v, _)| s.volumes.get(v)).collect();
    let mut witnesses: BTreeSet<(VolumeId, Generation)> = own.iter().map(|e| (e.id, e.generation)).collect();
    let mut holders: HashMap<*const Vec<u8>, &Entry> = HashMap::new();
    for e in s.volumes.values().filter(|e| own.iter().all(|o| o.id != e.id)) {
        for f in e.files.values() {
            // What cannot change is the better witness.
            let holder = holders.entry(Arc::as_ptr(&f.data)).or_insert(e);
            if e.read_only {
                *holder = e;
            }
        }
    }
    let mut seen = HashSet::new();
    let mut bytes = Bytes(0);
    for f in own.iter().flat_map(|e| e.files.values()).filter(|f| seen.insert(Arc::as_ptr(&f.data))) {
        match holders.get(&Arc::as_ptr(&f.data)) {
            Some(e) => drop(witnesses.insert((e.id, e.generation))),
            None => bytes = bytes + Bytes(f.data.len() as u64),
        }
    }
    let witnesses = witnesses.into_iter().map(|(volume, generation)| Witness { volume, generation }).collect();
    Exclusive { bytes, witnesses }
}

impl State {
    /// Makes all files of `volumes` with this content refer to one place, if more than one place holds it and the others can be given up.
    fn merge(&mut self, volumes: &[Volume], data: &[u8], d: &mut Deduped) {
        let may_change = |v: &Volume, e: &Entry| volumes.contains(v) && (!e.read_only || matches!(v, Volume::Image(_)));
        let mut places: BTreeMap<*const Vec<u8>, (Arc<Vec<u8>>, bool)> = BTreeMap::new();
        for f in self.volumes.iter().filter(|(v, e)| may_change(v, e)).flat_map(|(_, e)| e.files.values()).filter(|f| **f.data == *data) {
            places.insert(Arc::as_ptr(&f.data), (Arc::clone(&f.data), false));
        }
        for f in self.volumes.iter().filter(|(v, e)| !may_change(v, e)).flat_map(|(_, e)| e.files.values()) {
            if let Some((_, held)) = places.get_mut(&Arc::as_ptr(&f.data)) {
                *held = true;
            }
        }
        let Some(kept) = places.values().find(|(_, held)| *held).or(places.values().next()).map(|(data, _)| Arc::clone(data)) else { return };
        let now = Generation(self.generation);
        for (place, (old, held)) in places.iter().filter(|(_, (old, _))| !Arc::ptr_eq(old, &kept)) {
            if *held {
                d.held = d.held + Bytes(old.len() as u64);
                continue;
            }
            for e in self.volumes.values_mut() {
                for f in e.files.values_mut().filter(|f| Arc::as_ptr(&f.data) == *place) {
                    f.data = Arc::clone(&kept);
                    e.generation = now;
                    d.merged = d.merged + Bytes(old.len() as u64);
                }
            }
            d.gained = d.gained + Bytes(old.len() as u64);
        }
        self.generation += 1;
    }
}

impl Dedupe for MemoryStore {
    fn merge_equal(&self, request: &DedupeRequest<'_>) -> Result<Deduped> {
        let mut d = Deduped::default();
        let all: Vec<Arc<Vec<u8>>> = {
            let s = self.state();
            let files = request.volumes.iter().filter_map(|v| s.volumes.get(v)).flat_map(|e| e.files.values());
            files.filter(|f| f.data.len() as u64 >= request.min_size.0.max(1)).map(|f| Arc::clone(&f.data)).collect()
        };
        let total: Bytes = all.iter().map(|f| Bytes(f.len() as u64)).sum();
        let mut seen: HashSet<&[u8]> = HashSet::new();
        for data in &all {
            if (request.stop)() {
                d.stopped = true;
                break;
            }
            if seen.insert(data) {
                self.state().merge(request.volumes, data, &mut d);
            }
            d.read = d.read + Bytes(data.len() as u64);
            (request.progress)(d.read, total);
        }
        Ok(d)
    }
}
