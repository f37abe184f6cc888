//! Rule 6: no cycle of waits remains.
//!
//! Each new wait is searched for a cycle. Doubtful cycles (where it is not certain which thread continues with a connection) and the few that arise without a
//! new wait (an intent lapses or is revoked, a file's header changes, another thread of the owner unlocks) are found by [`Broker::judge`], which examines all
//! old waits at once.

use super::file::File;
use super::{Answer, Broker, Cause, Class, FileId, LockKind, Owner, Request, Task, Tick, Ticket, View, rules};
use std::collections::{HashMap, HashSet, VecDeque};

/// The number of locks and waits that the search of a new wait visits before it gives up, which takes some hundred microseconds. Then `judge` finds the cycle.
const PATIENCE: usize = 100_000;
/// The time after which all old waits are examined again, in microseconds.
const JUDGE_EVERY: Tick = 250_000;
/// The same if a wait has just become old.
const JUDGE_SOON: Tick = 25_000;
/// Visiting this many locks and waits delays the next judgement by a microsecond, so that judging takes a few hundredths of the time, however many wait.
const LOOKS_PER_US: usize = 5;
/// The number of cycles broken in one tick.
const AT_ONCE: usize = 16;

/// One wait of a cycle: who waits, and what it waits for.
#[derive(Debug, Clone, Copy)]
struct Hop {
    file: FileId,
    ticket: Ticket,
    task: Task,
    blocker: Owner,
    /// Whether it waits for the intent of `blocker`, not for a lock.
    by_intent: bool,
}

/// When old waits are judged.
#[derive(Debug, Default)]
pub(super) struct Judge {
    /// Whether a wait has become old since the last judgement.
    pub wanted: bool,
    /// The earliest time of the next judgement if one has.
    soonest: Tick,
    /// The latest time of the next judgement.
    latest: Tick,
}

/// Whether `e`, which is ahead in the queue, must be served before `r` because they want overlapping bytes.
fn contend(e: &Request, r: &Request) -> bool {
    e.range.overlaps(r.range) && (e.kind == LockKind::Write || r.kind == LockKind::Write)
}

impl Broker {
    /// Breaks every cycle that the wait `ticket` closes. With `doubtful`, cycles through processes that move connections between threads count too.
    pub(super) fn break_cycles(&mut self, now: Tick, view: &dyn View, file: FileId, ticket: Ticket, doubtful: bool, out: &mut Vec<Answer>) {
        // Each round revokes an intent or answers a waiter, so this ends.
        while let Some(cycle) = self.find_cycle(view, file, ticket, doubtful) {
            if let Some(hop) =
                cycle.iter().find(|h| h.by_intent && self.files.get(&h.file).is_some_and(|f| f.has_intent(h.blocker) && !f.is_writing(h.blocker)))
            {
                let id = hop.file;
                self.revoke(now, id);
                self.pump(now, view, id, out);
                continue;
            }
            if let Some((id, owner)) = self.could_only_read(view, &cycle) {
                if let Some(file) = self.files.get_mut(&id) {
                    file.guests.insert(owner);
                }
                self.pump(now, view, id, out);
                continue;
            }
            let writing = self.writing_threads();
            let victim = cycle.iter().find(|h| !writing.contains(&h.task.tid)).map_or((file, ticket), |h| (h.file, h.ticket));
            let cause = if cycle.len() == 1 { Cause::OwnThread } else { Cause::Deadlock };
            self.refuse_waiter(now, victim.0, victim.1, cause, out);
            self.pump(now, view, victim.0, out);
        }
    }

    /// A waiter in a cycle that waits to read only because it might write afterwards: the holder of the intent does not conflict with reading. (If it were
    /// refused, SQLite would retry for ten seconds and then report "locking protocol".) If it writes in the same transaction, that request is refused.
    fn could_only_read(&self, view: &dyn View, cycle: &[Hop]) -> Option<(FileId, Owner)> {
        cycle.iter().find_map(|hop| {
            let file = self.files.get(&hop.file)?;
            let r = &file.queue.get(file.position(hop.ticket)?)?.request;
            let reads = r.kind == LockKind::Read && rules::needs_intent(file, r, view) && !file.guests.contains(&r.owner);
            (reads && file.conflicts(r.owner, r.range, r.kind).next().is_none()).then_some((hop.file, r.owner))
        })
    }

    /// The threads that have a write transaction open on any database.
    fn writing_threads(&self) -> HashSet<u32> {
        let files = self.files.values().filter(|f| f.class != Class::Plain);
        files.flat_map(|f| f.holders.iter().filter(|(o, _)| f.is_writing(**o)).map(|(_, h)| h.task.tid)).collect()
    }

    /// A shortest path from a wait to its own thread.
    fn find_cycle(&self, view: &dyn View, file: FileId, ticket: Ticket, doubtful: bool) -> Option<Vec<Hop>> {
        let mut search = Search { broker: self, view, by_file: HashMap::new(), fronts: Vec::new(), found: Vec::new(), looks: 0 };
        search.reach(file, ticket, None);
        let start = search.found.first()?.request.task.tid;
        let mut next = 0;
        // Not recursive: a chain of waits may be as long as the number of threads.
        while next < search.found.len() && (doubtful || search.looks < PATIENCE) {
            for edge in search.blockers(next) {
                if edge.task.tid == 0 || (!doubtful && self.migrating.contains(&edge.task.pid)) {
                    continue;
                }
                let from = Some((next, edge.owner, edge.by_intent));
                if edge.task.tid == start {
                    return Some(search.way(from));
                }
                if let Some((front, at)) = edge.waits_at {
                    search.reach_at(front, at, from);
                } else if let Some((f, t)) = self.waiting.get(&edge.task.tid) {
                    search.reach(*f, *t, from);
                }
            }
            next += 1;
        }
        None
    }

    /// Breaks all cycles among waits that are older than [`doubt`](super::Limits::doubt), including doubtful ones. It finds them all at once: searched one by one,
    /// each would visit all the others. It is enough to do so when a wait has become old, and now and then: a cycle stays until it is broken, all its waits become
    /// old, and a cycle that arises among old waits is found the next time.
    pub(super) fn judge(&mut self, now: Tick, view: &dyn View, out: &mut Vec<Answer>) {
        if self.waiting.is_empty() || now < if self.judge.wanted { self.judge.soonest } else { self.judge.latest } {
            return;
        }
        let (knots, looks) = self.knots(now, view);
        let rest = (looks / LOOKS_PER_US) as Tick;
        // Breaking these cycles may leave more.
        self.judge = Judge { wanted: !knots.is_empty(), soonest: now + JUDGE_SOON.max(rest), latest: now + JUDGE_EVERY.max(rest) };
        for (file, ticket) in knots {
            self.break_cycles(now, view, file, ticket, true, out);
        }
    }

    /// Old waits that are each in a cycle, at most one for any two cycles that share a wait; and how many locks and waits were visited.
    ///
    /// A wait can end if everything that it waits for can: first the waits for threads that do not wait, then the waits for those, and so on. Each wait remembers
    /// one of its blockers and is examined again when that one can end. The remaining waits each wait for a remaining wait, so following them leads into a cycle.
    fn knots(&self, now: Tick, view: &dyn View) -> (Vec<(FileId, Ticket)>, usize) {
        let mut waits = Waits::new(self, now);
        let mut todo: VecDeque<usize> = (0..waits.nodes.len()).collect();
        while let Some(n) = todo.pop_front() {
            if waits.ends_well.get(n).is_none_or(|ends| *ends) {
                continue;
            }
            if let Some(blocker) = waits.blocker(view, n) {
                waits.held_by[n] = blocker;
                waits.holds_up[blocker].push(n);
            } else {
                waits.ends_well[n] = true;
                todo.extend(std::mem::take(&mut waits.holds_up[n]));
            }
        }
        let mut knots = Vec::new();
        let mut visited_from = vec![usize::MAX; waits.nodes.len()];
        for start in (0..waits.nodes.len()).filter(|n| !waits.ends_well[*n]) {
            let mut n = start;
            while visited_from[n] == usize::MAX {
                visited_from[n] = start;
                n = waits.held_by[n];
            }
            if visited_from[n] == start && knots.len() < AT_ONCE {
                let (front, at) = waits.nodes[n];
                knots.extend(waits.fronts[front].file.queue.get(at).map(|w| (w.request.file, w.request.ticket)));
            }
        }
        (knots, waits.looks)
    }
}

/// A wait that a search has reached, and from where.
struct Reached {
    request: Request,
    front: usize,
    at: usize,
    from: Option<(usize, Owner, bool)>,
}

/// An owner that a wait waits for, with the thread that acts for it.
struct Edge {
    owner: Owner,
    task: Task,
    by_intent: bool,
    /// Where that thread waits, if it waits.
    waits_at: Option<(usize, usize)>,
}

/// The locks and waits of one file that a search has not visited. What was visited leads nowhere new and is removed: otherwise each of a thousand waiters would
/// visit all others.
struct Front<'a> {
    file: &'a File,
    holders: Vec<(Owner, &'a super::file::Held)>,
    intent: Option<super::file::Intent>,
    queue: Vec<usize>,
    reached: Vec<bool>,
}

/// A search from one wait, breadth first.
struct Search<'a> {
    broker: &'a Broker,
    view: &'a dyn View,
    by_file: HashMap<FileId, usize>,
    fronts: Vec<Front<'a>>,
    found: Vec<Reached>,
    looks: usize,
}

impl<'a> Search<'a> {
    fn reach(&mut self, id: FileId, ticket: Ticket, from: Option<(usize, Owner, bool)>) {
        let broker: &'a Broker = self.broker;
        let Some(file) = broker.files.get(&id) else { return };
        let Some(at) = file.position(ticket) else { return };
        let front = *self.by_file.entry(id).or_insert(self.fronts.len());
        if front == self.fronts.len() {
            self.looks += file.holders.len() + file.queue.len();
            let holders = file.holders.iter().map(|(o, h)| (*o, h)).collect();
            let (queue, reached) = ((0..file.queue.len()).collect(), vec![false; file.queue.len()]);
            self.fronts.push(Front { file, holders, intent: file.intent, queue, reached });
        }
        self.reach_at(front, at, from);
    }

    fn reach_at(&mut self, front: usize, at: usize, from: Option<(usize, Owner, bool)>) {
        let Some(Front { file, reached, .. }) = self.fronts.get_mut(front) else { return };
        if let (Some(reached), Some(waiter)) = (reached.get_mut(at), file.queue.get(at))
            && !std::mem::replace(reached, true)
        {
            self.found.push(Reached { request: waiter.request, front, at, from });
        }
    }

    /// What the `n`th reached wait waits for, except for what was visited before.
    fn blockers(&mut self, n: usize) -> Vec<Edge> {
        let mut edges = Vec::new();
        let Some(Reached { request: r, front: here, at, .. }) = self.found.get(n) else { return edges };
        let Some(front) = self.fronts.get_mut(*here) else { return edges };
        let file = front.file;
        self.looks += 1 + front.holders.len();
        front.holders.retain(|(owner, held)| {
            let blocks = *owner != r.owner && held.ranges.conflict(r.range, r.kind).is_some();
            if blocks {
                edges.push(Edge { owner: *owner, task: held.task, by_intent: false, waits_at: None });
            }
            !blocks
        });
        if file.has_intent(r.owner) {
            return edges;
        }
        let needs = rules::needs_intent(file, r, self.view);
        if needs && let Some(intent) = front.intent.take() {
            let task = file.held(intent.owner).map_or(intent.task, |h| h.task);
            edges.push(Edge { owner: intent.owner, task, by_intent: true, waits_at: None });
        }
        if front.queue.first().is_none_or(|first| first >= at) {
            return edges;
        }
        self.looks += front.queue.len();
        front.queue.retain(|i| {
            let Some(e) = file.queue.get(*i).filter(|_| i < at).map(|w| &w.request) else { return true };
            let blocks = e.owner != r.owner && (contend(e, r) || (needs && rules::needs_intent(file, e, self.view)));
            if blocks {
                edges.push(Edge { owner: e.owner, task: e.task, by_intent: false, waits_at: Some((*here, *i)) });
            }
            !blocks
        });
        edges
    }

    /// The path that ends with `last`, from its start.
    fn way(&self, last: Option<(usize, Owner, bool)>) -> Vec<Hop> {
        let (mut way, mut step) = (Vec::new(), last);
        while let Some((n, blocker, by_intent)) = step {
            let Some(Reached { request: r, from, .. }) = self.found.get(n) else { break };
            way.push(Hop { file: r.file, ticket: r.ticket, task: r.task, blocker, by_intent });
            step = *from;
        }
        way.reverse();
        way
    }
}

/// A file with old waits.
struct Waited<'a> {
    file: &'a File,
    /// The node of each waiter; `None` for a young one, which may still end by itself.
    queue: Vec<Option<usize>>,
    /// Waiters before this one can end.
    first: usize,
    /// Holders whose threads wait.
    holders: Vec<(usize, Owner, &'a super::file::Held)>,
    /// The holder of the intent, if its thread waits.
    intent: Option<usize>,
}

/// All old waits, as the nodes of a graph.
struct Waits<'a> {
    fronts: Vec<Waited<'a>>,
    /// The file, and the position in its queue.
    nodes: Vec<(usize, usize)>,
    ends_well: Vec<bool>,
    held_by: Vec<usize>,
    holds_up: Vec<Vec<usize>>,
    looks: usize,
}

impl<'a> Waits<'a> {
    fn new(broker: &'a Broker, now: Tick) -> Self {
        let mut waits = Waits { fronts: Vec::new(), nodes: Vec::new(), ends_well: Vec::new(), held_by: Vec::new(), holds_up: Vec::new(), looks: 0 };
        let mut by_thread = HashMap::new();
        for file in broker.timed.iter().filter_map(|id| broker.files.get(id)).filter(|f| !f.queue.is_empty()) {
            let front = waits.fronts.len();
            let mut queue = Vec::with_capacity(file.queue.len());
            for (at, w) in file.queue.iter().enumerate() {
                let old = now.saturating_sub(w.since) >= broker.limits.doubt;
                queue.push(old.then_some(waits.nodes.len()));
                if old {
                    by_thread.insert(w.request.task.tid, waits.nodes.len());
                    waits.nodes.push((front, at));
                }
            }
            waits.fronts.push(Waited { file, queue, first: 0, holders: Vec::new(), intent: None });
        }
        by_thread.remove(&0);
        for front in &mut waits.fronts {
            let file = front.file;
            waits.looks += file.holders.len() + file.queue.len();
            front.holders = file.holders.iter().filter_map(|(o, h)| Some((*by_thread.get(&h.task.tid)?, *o, h))).collect();
            front.intent = file.intent.and_then(|i| by_thread.get(&file.held(i.owner).map_or(i.task, |h| h.task).tid).copied());
            // A thread that the kernel does not name is not known to wait.
            for (node, w) in front.queue.iter_mut().zip(&file.queue) {
                if w.request.task.tid == 0 {
                    *node = None;
                }
            }
        }
        waits.ends_well = vec![false; waits.nodes.len()];
        waits.held_by = vec![0; waits.nodes.len()];
        waits.holds_up = vec![Vec::new(); waits.nodes.len()];
        waits
    }

    /// Something that the `n`th wait waits for and that is not known to end.
    fn blocker(&mut self, view: &dyn View, n: usize) -> Option<usize> {
        let (front, at) = *self.nodes.get(n)?;
        let front = self.fronts.get_mut(front)?;
        let file = front.file;
        let r = &file.queue.get(at)?.request;
        let ends_well = &self.ends_well;
        let stays = |node: usize| ends_well.get(node).is_some_and(|ends| !ends);
        front.holders.retain(|(node, ..)| stays(*node));
        self.looks += 1 + front.holders.len();
        if let Some((node, ..)) = front.holders.iter().find(|(_, o, h)| *o != r.owner && h.ranges.conflict(r.range, r.kind).is_some()) {
            return Some(*node);
        }
        if file.has_intent(r.owner) {
            return None;
        }
        let needs = rules::needs_intent(file, r, view);
        if let Some(node) = front.intent.filter(|node| needs && stays(*node)) {
            return Some(node);
        }
        while front.first < at && front.queue.get(front.first).is_some_and(|node| node.is_none_or(|node| !stays(node))) {
            front.first += 1;
        }
        for i in front.first..at {
            self.looks += 1;
            let (Some(Some(node)), Some(e)) = (front.queue.get(i), file.queue.get(i).map(|w| &w.request)) else { continue };
            if stays(*node) && e.owner != r.owner && (contend(e, r) || (needs && rules::needs_intent(file, e, view))) {
                return Some(*node);
            }
        }
        None
    }
}
