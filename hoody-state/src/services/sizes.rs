//! What the deletion of a snapshot would free, and what a live volume has that no snapshot has.
//!
//! Both take a walk of changed parts of trees, so they are measured in the background, and who asks waits for as long as it wants. A figure is given only
//! while it is certainly right: it was measured while no operation was under way in the container's family ([`Families`]), none has begun since, and
//! the volumes that the answer rests on are as they were ([`Witness`]). Else it is not known, and measured again.

use crate::catalog::containers::{self, ContainerRow};
use crate::catalog::families::{Epoch, Families};
use crate::catalog::records::Records;
use crate::catalog::{history, images, snapshots};
use crate::error::Result;
use crate::id::ContainerId;
use crate::name::SnapshotName;
use crate::snapshot::{ExclusiveQuery, SnapshotStore, Volume, Witness};
use crate::units::{Bytes, Generation, VolumeId};
use rusqlite::Connection;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The longest that one snapshot is measured.
const LONGEST: Duration = Duration::from_secs(20);
/// How old what a live volume has written may be.
const UNSAVED_AGE: Duration = Duration::from_secs(10);
/// When what could not be measured is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// The longest that a request checks figures which are there. Those that it does not come to are not known to it.
const CHECKS: Duration = Duration::from_millis(20);
/// Figures that are kept; then the oldest go.
const KEPT: usize = 50_000;

/// What can be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Wanted {
    /// What the deletion of a snapshot would free.
    Frees(ContainerId, SnapshotName),
    /// What the live volume has that the snapshot it grew from has not.
    Unsaved(ContainerId),
}

impl Wanted {
    fn container(&self) -> &ContainerId {
        match self {
            Wanted::Frees(id, _) | Wanted::Unsaved(id) => id,
        }
    }
}

/// A figure and what it rests on.
struct Figure {
    bytes: Option<Bytes>,
    at: Instant,
    epoch: Option<Epoch>,
    witnesses: Vec<Witness>,
}

#[derive(Default)]
struct State {
    figures: HashMap<Wanted, Figure>,
    queue: VecDeque<Wanted>,
    queued: HashSet<Wanted>,
    working: bool,
}

/// Measures in the background, one at a time.
pub(crate) struct Sizes {
    store: Arc<dyn SnapshotStore>,
    records: Records,
    state: Mutex<State>,
    measured: Condvar,
    closed: AtomicBool,
}

/// What is known at one moment, looked up once.
struct Now {
    families: Families,
    epochs: HashMap<ContainerId, Option<Epoch>>,
    generations: HashMap<VolumeId, Option<Generation>>,
}

impl Now {
    fn read(c: &Connection) -> Result<Self> {
        Ok(Now { families: Families::read(c)?, epochs: HashMap::new(), generations: HashMap::new() })
    }

    fn epoch(&mut self, c: &Connection, id: &ContainerId) -> Result<Option<Epoch>> {
        if let Some(known) = self.epochs.get(id) {
            return Ok(*known);
        }
        let epoch = self.families.epoch(c, id)?;
        self.epochs.insert(id.clone(), epoch);
        Ok(epoch)
    }

    fn holds(&mut self, store: &dyn SnapshotStore, w: &Witness) -> Result<bool> {
        let now = match self.generations.get(&w.volume) {
            Some(known) => *known,
            None => *self.generations.entry(w.volume).or_insert(store.generation_of(w.volume)?),
        };
        Ok(now == Some(w.generation))
    }
}

impl Sizes {
    pub(crate) fn new(store: Arc<dyn SnapshotStore>, records: Records) -> Self {
        Sizes { store, records, state: Mutex::default(), measured: Condvar::new(), closed: AtomicBool::new(false) }
    }

    /// Ends the work in the background.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.measured.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The figures that are certain, after waiting up to `wait` for those that are not. What is missing in the answer is not known (yet). `run` runs a
    /// function in the background.
    ///
    /// # Errors
    /// Those of the catalog and of the pool.
    pub(crate) fn look(self: &Arc<Self>, wanted: &[Wanted], wait: Duration, run: impl FnOnce(Box<dyn FnOnce() + Send>)) -> Result<HashMap<Wanted, Bytes>> {
        let end = Instant::now() + wait;
        let mut known = self.certain(wanted)?;
        let missing: Vec<&Wanted> = wanted.iter().filter(|w| !known.contains_key(w)).collect();
        if missing.is_empty() || self.closed.load(Ordering::Relaxed) {
            return Ok(known);
        }
        self.enqueue(&missing, run);
        let mut state = self.state();
        while missing.iter().any(|w| state.queued.contains(w)) && !self.closed.load(Ordering::Relaxed) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.measured.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(state);
        let missing: Vec<Wanted> = missing.into_iter().cloned().collect();
        known.extend(self.certain(&missing)?);
        Ok(known)
    }

    fn enqueue(self: &Arc<Self>, missing: &[&Wanted], run: impl FnOnce(Box<dyn FnOnce() + Send>)) {
        let mut state = self.state();
        for w in missing {
            let failed_lately = state.figures.get(w).is_some_and(|f| f.bytes.is_none() && f.at.elapsed() < AGAIN);
            if !failed_lately && state.queued.insert((*w).clone()) {
                state.queue.push_back((*w).clone());
            }
        }
        if state.working || state.queue.is_empty() {
            return;
        }
        state.working = true;
        drop(state);
        let this = Arc::clone(self);
        run(Box::new(move || this.work()));
    }

    /// Measures what is queued, until there is nothing left.
    fn work(&self) {
        loop {
            let mut state = self.state();
            let next = if self.closed.load(Ordering::Relaxed) { None } else { state.queue.pop_front() };
            let Some(wanted) = next else {
                state.working = false;
                state.queue.clear();
                state.queued.clear();
                drop(state);
                self.measured.notify_all();
                return;
            };
            drop(state);
            let figure = self.measure(&wanted).unwrap_or_else(|e| {
                tracing::debug!(container = %wanted.container(), error = %e, "not measured");
                Figure { bytes: None, at: Instant::now(), epoch: None, witnesses: Vec::new() }
            });
            let mut state = self.state();
            if state.figures.len() >= KEPT {
                let mut ages: Vec<Instant> = state.figures.values().map(|f| f.at).collect();
                ages.sort_unstable();
                let oldest = ages.get(ages.len() / 2).copied();
                state.figures.retain(|_, f| oldest.is_some_and(|o| f.at > o));
            }
            state.queued.remove(&wanted);
            state.figures.insert(wanted, figure);
            drop(state);
            self.measured.notify_all();
        }
    }

    /// Those figures that are certain now.
    fn certain(&self, wanted: &[Wanted]) -> Result<HashMap<Wanted, Bytes>> {
        let end = Instant::now() + CHECKS;
        let state = self.state();
        let there: Vec<(&Wanted, Bytes, Option<Epoch>, Vec<Witness>)> = wanted
            .iter()
            .filter_map(|w| {
                let f = state.figures.get(w)?;
                let young = matches!(w, Wanted::Frees(..)) || f.at.elapsed() < UNSAVED_AGE;
                f.bytes.filter(|_| young).map(|b| (w, b, f.epoch, f.witnesses.clone()))
            })
            .collect();
        drop(state);
        let mut known = HashMap::new();
        if there.is_empty() {
            return Ok(known);
        }
        self.records.read(|c| {
            let mut now = Now::read(c)?;
            for (w, bytes, epoch, witnesses) in there {
                if Instant::now() >= end {
                    break;
                }
                if epoch.is_none() || now.epoch(c, w.container())? != epoch {
                    continue;
                }
                let mut holds = true;
                for witness in &witnesses {
                    holds = holds && now.holds(&*self.store, witness)?;
                }
                if holds {
                    known.insert(w.clone(), bytes);
                }
            }
            Ok(known)
        })
    }

    fn measure(&self, wanted: &Wanted) -> Result<Figure> {
        let at = Instant::now();
        let epoch = |c: &Connection| Families::read(c)?.epoch(c, wanted.container());
        let before = self.records.read(epoch)?;
        let (bytes, witnesses) = match (wanted, before) {
            (_, None) => (None, Vec::new()),
            (Wanted::Unsaved(id), _) => (self.unsaved(id)?, Vec::new()),
            (Wanted::Frees(id, name), _) => self.frees(id, name, at)?,
        };
        // What was changed meanwhile may have been seen in part.
        let after = self.records.read(epoch)?;
        let bytes = bytes.filter(|_| after == before);
        Ok(Figure { bytes, at: Instant::now(), epoch: before, witnesses })
    }

    fn unsaved(&self, id: &ContainerId) -> Result<Option<Bytes>> {
        let (live, base) = (Volume::Live(id.clone()), self.records.read(|c| base_of_live(c, id))?);
        match self.store.delta(&live, Some(base)) {
            Err(e) if e.is_not_found() => Ok(None),
            delta => delta.map(Some),
        }
    }

    fn frees(&self, id: &ContainerId, name: &SnapshotName, began: Instant) -> Result<(Option<Bytes>, Vec<Witness>)> {
        let Some((volumes, likely)) = self.records.read(|c| plan(c, id, name))? else { return Ok((None, Vec::new())) };
        let stop = || self.closed.load(Ordering::Relaxed) || began.elapsed() > LONGEST;
        let found = self.store.exclusive(&ExclusiveQuery { volumes: &volumes, likely: &likely, stop: &stop })?;
        Ok(found.map_or((None, Vec::new()), |e| (Some(e.bytes), e.witnesses)))
    }
}

/// The generation from which a live volume differs from what it grew from.
fn base_of_live(c: &Connection, id: &ContainerId) -> Result<Generation> {
    let state = containers::get(c, id)?.state;
    let head = state.head.as_ref().map(|h| snapshots::by_name(c, id, h.as_str())).transpose()?.flatten();
    Ok(head.map_or(state.origin, |h| h.generation))
}

/// The volumes of a snapshot with the generations from which they must be looked at, and the volumes that probably share data with them.
#[allow(clippy::type_complexity)]
fn plan(c: &Connection, id: &ContainerId, name: &SnapshotName) -> Result<Option<(Vec<(Volume, Generation)>, Vec<Volume>)>> {
    let (row, all) = (containers::get(c, id)?, snapshots::all(c, id)?);
    let Some(this) = all.iter().find(|s| s.snapshot.name == *name) else { return Ok(None) };
    let since = match &this.snapshot.parent {
        // What its parent had when it was taken, and this one still has, the parent holds.
        Some(p) => history::content_generation(c, id, p)?.unwrap_or(Generation(0)),
        None => image_generation(c, &row)?,
    };
    let volumes = vec![
        (Volume::Snapshot(id.clone(), name.clone()), since),
        // The databases of a project are snapshotted with each of its containers. They are few files.
        (Volume::SnapshotDatabases(id.clone(), name.clone()), Generation(0)),
    ];
    let children = all.iter().filter(|s| s.snapshot.parent.as_ref() == Some(name));
    let mut likely: Vec<Volume> = children.map(|s| Volume::Snapshot(id.clone(), s.snapshot.name.clone())).collect();
    if row.state.head.as_ref() == Some(name) {
        likely.push(Volume::Live(id.clone()));
    }
    likely.extend(history::copies(c, id, name)?.into_iter().map(|(id, name)| Volume::Snapshot(id, name)));
    Ok(Some((volumes, likely)))
}

/// The generation up to which a container's image holds what its first snapshot has: 0 if the image is gone, or if that is not certain.
fn image_generation(c: &Connection, row: &ContainerRow) -> Result<Generation> {
    let Ok(name) = row.spec.image.parse() else { return Ok(Generation(0)) };
    let same = images::by_name(c, &name)?.is_some_and(|i| i.created_at <= row.created);
    Ok(if same && row.spec.source.is_none() { row.state.origin } else { Generation(0) })
}
