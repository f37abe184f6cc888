//! What the deletion of a snapshot would free, and what a live volume has that no snapshot has.
//!
//! Both take a walk of changed parts of trees, so they are measured in the background, and who asks waits for as long as it wants. A figure is given only
//! while it is certainly right: it was measured while no operation was under way in the container's family ([`Families`]), none has begun since, and
//! the volumes that the answer rests on are as they were ([`Witness`]). Else it is not known, and measured again.

use crate::catalog::containers::{self, ContainerRow};
use crate::catalog::families::{Epoch, Families};
use crate::catalog::records::Records;
use crate::catalog::snapshots::SnapshotRow;
use crate::catalog::{history, images, snapshots};
use crate::error::Result;
use crate::id::ContainerId;
use crate::name::{ImageName, SnapshotName};
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
const CHECKS: Duration = Duration::from_millis(50);
/// Figures that are kept; then the oldest go.
const KEPT: usize = 50_000;

/// What can be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Wanted {
    /// What the deletion of a snapshot would free.
    Frees(ContainerId, SnapshotName),
    /// What the deletion of several snapshots would free together. Made by [`Wanted::together`].
    Together(ContainerId, Vec<SnapshotName>),
    /// What the live volume has that the snapshot it grew from has not.
    Unsaved(ContainerId),
}

impl Wanted {
    /// For several snapshots: in any order, and each once.
    pub(crate) fn together(id: &ContainerId, names: &[SnapshotName]) -> Self {
        let mut names = names.to_vec();
        names.sort_unstable();
        names.dedup();
        Wanted::Together(id.clone(), names)
    }

    fn container(&self) -> &ContainerId {
        match self {
            Wanted::Frees(id, _) | Wanted::Together(id, _) | Wanted::Unsaved(id) => id,
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
                let young = !matches!(w, Wanted::Unsaved(_)) || f.at.elapsed() < UNSAVED_AGE;
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
            (Wanted::Frees(id, name), _) => self.frees(id, std::slice::from_ref(name), at)?,
            (Wanted::Together(id, names), _) => self.frees(id, names, at)?,
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

    fn frees(&self, id: &ContainerId, names: &[SnapshotName], began: Instant) -> Result<(Option<Bytes>, Vec<Witness>)> {
        let Some(plan) = self.records.read(|c| plan(c, id, names))? else { return Ok((None, Vec::new())) };
        let Plan { mut volumes, likely, image } = plan;
        if let Some((image, origin)) = image
            && self.store.has_changed_since(&Volume::Image(image), origin)?
        {
            // Its data were merged with others': it may not hold any more what the first snapshots have of it.
            volumes.iter_mut().filter(|(_, since)| *since == origin).for_each(|(_, since)| *since = Generation(0));
        }
        let stop = || self.closed.load(Ordering::Relaxed) || began.elapsed() > LONGEST;
        let found = self.store.exclusive(&ExclusiveQuery { volumes: &volumes, likely: &likely, stop: &stop })?;
        Ok(found.map_or((None, Vec::new()), |e| (Some(e.bytes), e.witnesses)))
    }

    /// What the deletion of several snapshots of a container would free together, if it is known after waiting up to `wait`. That is not the sum of what each would free:
    /// what two of them share, and nothing else holds, comes back only when both go. Cost as for one, for each of them.
    ///
    /// # Errors
    /// Those of the catalog and of the pool.
    pub(crate) fn frees_together(
        self: &Arc<Self>,
        id: &ContainerId,
        names: &[SnapshotName],
        wait: Duration,
        run: impl FnOnce(Box<dyn FnOnce() + Send>),
    ) -> Result<Option<Bytes>> {
        let wanted = Wanted::together(id, names);
        Ok(self.look(std::slice::from_ref(&wanted), wait, run)?.remove(&wanted))
    }
}

/// The generation from which a live volume differs from what it grew from.
fn base_of_live(c: &Connection, id: &ContainerId) -> Result<Generation> {
    let state = containers::get(c, id)?.state;
    let head = state.head.as_ref().map(|h| snapshots::by_name(c, id, h.as_str())).transpose()?.flatten();
    Ok(head.map_or(state.origin, |h| h.generation))
}

/// How to measure what the deletion of snapshots frees.
struct Plan {
    /// The volumes of the snapshots, with the generations from which they must be looked at.
    volumes: Vec<(Volume, Generation)>,
    /// The volumes that probably share data with them, and since when.
    likely: Vec<(Volume, Generation)>,
    /// The image that holds what snapshots without a parent have from the generation beside it, or from before.
    image: Option<(ImageName, Generation)>,
}

/// `None`: one of the snapshots has gone.
fn plan(c: &Connection, id: &ContainerId, names: &[SnapshotName]) -> Result<Option<Plan>> {
    let (row, all) = (containers::get(c, id)?, snapshots::all(c, id)?);
    let of: HashMap<&SnapshotName, &SnapshotRow> = all.iter().map(|s| (&s.snapshot.name, s)).collect();
    let gone: HashSet<&SnapshotName> = names.iter().collect();
    let image = image_of(c, &row)?;
    let mut since: HashMap<&SnapshotName, Generation> = HashMap::new();
    for name in names {
        let Some(this) = of.get(name) else { return Ok(None) };
        // What its parent had when it was taken, and this one still has, the parent holds. If the parent goes as well, the parent's own volume is looked at for that.
        let generation = match &this.snapshot.parent {
            Some(p) => history::content_generation(c, id, p)?.unwrap_or(Generation(0)),
            None => image.as_ref().map_or(Generation(0), |(_, origin)| *origin),
        };
        since.insert(name, generation);
    }
    // Since when something that grew from `name`, and stays, may share data with one of those that go.
    let shares_since = |name: &SnapshotName| {
        let (mut at, mut oldest) = (Some(name), None::<Generation>);
        let mut left = gone.len();
        while let Some(name) = at.filter(|n| gone.contains(n) && left > 0) {
            oldest = since.get(name).copied().map(|s| oldest.map_or(s, |o| o.min(s)));
            at = of.get(name).and_then(|s| s.snapshot.parent.as_ref());
            left -= 1;
        }
        oldest.unwrap_or(Generation(0))
    };
    let mut volumes = Vec::new();
    let mut likely = Vec::new();
    for name in names {
        volumes.push((Volume::Snapshot(id.clone(), name.clone()), since.get(name).copied().unwrap_or(Generation(0))));
        // The databases of a project are snapshotted with each of its containers. They are few files.
        volumes.push((Volume::SnapshotDatabases(id.clone(), name.clone()), Generation(0)));
    }
    let stay = all.iter().filter(|s| !gone.contains(&s.snapshot.name));
    for child in stay.filter(|s| s.snapshot.parent.as_ref().is_some_and(|p| gone.contains(p))) {
        let since = child.snapshot.parent.as_ref().map_or(Generation(0), &shares_since);
        likely.push((Volume::Snapshot(id.clone(), child.snapshot.name.clone()), since));
    }
    if let Some(head) = row.state.head.as_ref().filter(|h| gone.contains(h)) {
        likely.push((Volume::Live(id.clone()), shares_since(head)));
    }
    for name in names {
        let copies = history::copies(c, id, name)?.into_iter().filter(|(of, name)| of != id || !gone.contains(name));
        likely.extend(copies.map(|(id, copy)| (Volume::Snapshot(id, copy), since.get(name).copied().unwrap_or(Generation(0)))));
    }
    Ok(Some(Plan { volumes, likely, image }))
}

/// The image of a container, and the generation up to which it holds what the container's first snapshot has; nothing if it is gone, or if that is not certain.
fn image_of(c: &Connection, row: &ContainerRow) -> Result<Option<(ImageName, Generation)>> {
    let Ok(name) = row.spec.image.parse() else { return Ok(None) };
    let same = images::by_name(c, &name)?.is_some_and(|i| i.created_at <= row.created);
    Ok((same && row.spec.source.is_none()).then_some((name, row.state.origin)))
}
