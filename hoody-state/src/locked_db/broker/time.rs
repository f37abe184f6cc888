//! What time does: waits end, kept intents lapse, long readers lose theirs.

use super::file::File;
use super::glance::Glance;
use super::{Answer, Broker, Cause, Class, FileId, LOOK_AGAIN, Tick, View, rules};

impl Broker {
    /// Time passes: kept intents lapse, long readers lose theirs, waits end. Call it at least every few milliseconds while somebody waits.
    pub fn tick(&mut self, now: Tick, view: &dyn View, out: &mut Vec<Answer>) {
        let view = &Glance::new(view);
        let ids: Vec<FileId> = self.timed.iter().copied().collect();
        for id in ids {
            let lapsed = self.lapse(now, view, id);
            if self.files.get(&id).is_some_and(|f| now >= f.due) {
                self.look_through(now, view, id, out);
            } else if lapsed {
                self.pump(now, view, id, out);
            }
            if !self.files.get(&id).is_some_and(File::is_timed) {
                self.timed.remove(&id);
            }
        }
        self.judge(now, view, out);
    }

    /// Notices which waits have become old, and ends those that are over.
    fn look_through(&mut self, now: Tick, view: &dyn View, id: FileId, out: &mut Vec<Answer>) {
        let Some(file) = self.files.get_mut(&id) else { return };
        let (mut due, mut over) = (now + LOOK_AGAIN, Vec::new());
        for w in &mut file.queue {
            let age = now.saturating_sub(w.since);
            if !w.old && age >= self.limits.doubt {
                w.old = true;
                self.judge.wanted = true;
            } else if !w.old {
                due = due.min(w.since + self.limits.doubt);
            }
            if w.request.wait && rules::is_ordinary(w.request.class, w.request.range) {
                continue;
            }
            if age >= self.limits.wait {
                over.push(w.request.ticket);
            } else {
                due = due.min(w.since + self.limits.wait);
            }
        }
        file.due = due;
        for ticket in over {
            self.refuse_waiter(now, id, ticket, Cause::Timeout, out);
        }
        self.pump(now, view, id, out);
    }

    /// While requests are not taken, nobody is held to have only read.
    pub fn set_deaf(&mut self, deaf: bool) {
        self.deaf = deaf;
    }

    /// So long no requests were taken, or the machine was too busy to go on: that time does not count as reading.
    pub fn excuse(&mut self, now: Tick, by: Tick) {
        for intent in self.files.values_mut().filter_map(|f| f.intent.as_mut()) {
            intent.since = (intent.since + by).min(now);
        }
    }

    /// Whether anything happens by time alone.
    #[must_use]
    pub fn needs_ticks(&self) -> bool {
        !self.waiting.is_empty() || self.timed.iter().any(|id| self.files.get(id).is_some_and(File::is_timed))
    }

    /// What ends by time alone; whether anything did.
    pub(super) fn lapse(&mut self, now: Tick, view: &dyn View, id: FileId) -> bool {
        let Some(file) = self.files.get_mut(&id) else { return false };
        let Some(intent) = file.intent else {
            // Nobody has it and the next in line did not come back.
            return file.heir.take().is_some();
        };
        if let Some(until) = intent.kept_until {
            if now < until {
                return false;
            }
            file.quick.remove(&intent.owner);
            if let Some(i) = &mut file.intent {
                i.kept_until = None;
                // Its turn is over.
                i.turn = 0;
            }
            self.settle(now, view, id, intent.owner);
            return true;
        }
        let phase = if file.class == Class::Database { self.limits.read_phase_rollback } else { self.limits.read_phase };
        if self.deaf || now.saturating_sub(intent.since) < phase || file.is_writing(intent.owner) {
            return false;
        }
        let waited_for = file.heir.is_some() || file.queue.iter().any(|w| rules::needs_intent(file, &w.request, view));
        if waited_for {
            self.revoke(now, id);
        }
        waited_for
    }
}
