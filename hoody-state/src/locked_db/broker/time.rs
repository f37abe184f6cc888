//! The effects of time: waits end, kept intents lapse, connections that only read lose theirs.

use super::file::File;
use super::glance::Glance;
use super::{Answer, Broker, Cause, Class, FileId, LOOK_AGAIN, Tick, View, rules};

impl Broker {
    /// Applies the effects of time. Call it at least every few milliseconds while anything waits.
    pub fn tick(&mut self, now: Tick, view: &dyn View, out: &mut Vec<Answer>) {
        let view = &Glance::new(view);
        let ids: Vec<FileId> = self.timed.iter().copied().collect();
        for id in ids {
            let lapsed = self.lapse(now, view, id);
            if self.files.get(&id).is_some_and(|f| now >= f.due) {
                self.examine_queue(now, view, id, out);
            } else if lapsed {
                self.pump(now, view, id, out);
            }
            if !self.files.get(&id).is_some_and(File::is_timed) {
                self.timed.remove(&id);
            }
        }
        self.judge(now, view, out);
    }

    /// Marks waits that have become old, and ends those that have lasted too long.
    fn examine_queue(&mut self, now: Tick, view: &dyn View, id: FileId, out: &mut Vec<Answer>) {
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

    /// Says whether requests are received at the moment. While they are not, no intent is revoked from a connection that seems to only read.
    pub fn set_paused(&mut self, is_paused: bool) {
        self.is_paused = is_paused;
    }

    /// Excludes a period from the time that counts as reading, because no requests were received in it or the machine was too busy.
    pub fn excuse(&mut self, now: Tick, by: Tick) {
        for intent in self.files.values_mut().filter_map(|f| f.intent.as_mut()) {
            intent.since = (intent.since + by).min(now);
        }
    }

    /// Whether any file needs [`tick`](Self::tick).
    #[must_use]
    pub fn needs_ticks(&self) -> bool {
        !self.waiting.is_empty() || self.timed.iter().any(|id| self.files.get(id).is_some_and(File::is_timed))
    }

    /// Ends what lapses with time on a file; returns whether anything did.
    pub(super) fn lapse(&mut self, now: Tick, view: &dyn View, id: FileId) -> bool {
        let Some(file) = self.files.get_mut(&id) else { return false };
        let Some(intent) = file.intent else {
            // No owner has the intent, and the next one in line did not come back.
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
        if self.is_paused || now.saturating_sub(intent.since) < phase || file.is_writing(intent.owner) {
            return false;
        }
        let waited_for = file.heir.is_some() || file.queue.iter().any(|w| rules::needs_intent(file, &w.request, view));
        if waited_for {
            self.revoke(now, id);
        }
        waited_for
    }
}
