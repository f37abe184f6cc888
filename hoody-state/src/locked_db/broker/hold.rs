//! Holding back all writes of some volumes for a moment, and answering the waits of tasks that are about to be frozen.

use super::glance::Glance;
use super::{Answer, Broker, Cause, FileId, Request, Tick, Ticket, View, VolumeId, rules};

/// A wait, as seen from its thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// The thread.
    pub tid: u32,
    /// What it waits for.
    pub file: FileId,
    /// Its request.
    pub ticket: Ticket,
    /// Whether it asked to wait (`F_SETLKW`), and so must expect to be interrupted.
    pub asked_to_wait: bool,
}

impl Broker {
    /// From now on no connection begins to write in these volumes. Open write transactions continue to their end.
    pub fn hold(&mut self, volumes: &[VolumeId]) {
        for v in volumes {
            *self.held_volumes.entry(*v).or_default() += 1;
        }
    }

    /// Ends one [`hold`](Self::hold).
    pub fn release(&mut self, now: Tick, view: &dyn View, volumes: &[VolumeId], out: &mut Vec<Answer>) {
        for v in volumes {
            if let Some(n) = self.held_volumes.get_mut(v) {
                *n -= 1;
                if *n == 0 {
                    self.held_volumes.remove(v);
                }
            }
        }
        let view = &Glance::new(view);
        let ids: Vec<FileId> = self.files.iter().filter(|(_, f)| volumes.contains(&f.volume)).map(|(i, _)| *i).collect();
        for id in ids {
            self.pump(now, view, id, out);
        }
    }

    /// From now on requests for held volumes are refused instead of held back: the volumes are held for ever, and a connection that waits with a read lock would
    /// block others for as long as it waits.
    pub fn refuse_held_back(&mut self, now: Tick, view: &dyn View, out: &mut Vec<Answer>) {
        self.refuses_held_back = true;
        let queued = self.files.iter().flat_map(|(id, f)| f.queue.iter().map(|w| (*id, w.request)));
        let over: Vec<(FileId, Ticket)> = queued.filter(|(_, r)| self.is_held_back(r)).map(|(id, r)| (id, r.ticket)).collect();
        self.cancel_all(now, view, &over, Cause::Conflict, out);
    }

    /// The files of these volumes in which a write transaction is open.
    #[must_use]
    pub fn being_written(&self, volumes: &[VolumeId]) -> Vec<FileId> {
        self.files.iter().filter(|(_, f)| volumes.contains(&f.volume) && f.is_being_written()).map(|(i, _)| *i).collect()
    }

    /// Whether a request must wait only because its volume is held back.
    pub(super) fn is_held_back(&self, r: &Request) -> bool {
        self.held_volumes.contains_key(&r.volume) && rules::begins_write(r) && !self.files.get(&r.file).is_some_and(|f| f.is_writing(r.owner))
    }

    /// The requests of threads for which `of` holds, with their files, to be [cancelled](Self::cancel).
    #[must_use]
    pub fn waiting_of(&self, of: &dyn Fn(u32) -> bool) -> Vec<(FileId, Ticket)> {
        self.waiting.iter().filter(|(tid, _)| of(**tid)).map(|(_, w)| *w).collect()
    }

    /// The waits of threads that have lasted for at least `age`.
    #[must_use]
    pub fn waiting_since(&self, now: Tick, age: Tick) -> Vec<Waiting> {
        let files = self.timed.iter().filter_map(|id| self.files.get(id));
        let old = files.flat_map(|f| &f.queue).filter(|w| now.saturating_sub(w.since) >= age).map(|w| &w.request);
        old.map(|r| Waiting { tid: r.task.tid, file: r.file, ticket: r.ticket, asked_to_wait: r.wait }).collect()
    }

    /// Refuses the waits of a volume whose directory is removed. Held locks stay until their owner closes the file: it may be open through another volume too, or be
    /// served again.
    pub fn forget_volume(&mut self, now: Tick, volume: VolumeId, out: &mut Vec<Answer>) {
        let ids: Vec<FileId> = self.files.iter().filter(|(_, f)| f.volume == volume).map(|(i, _)| *i).collect();
        for id in ids {
            let tickets: Vec<Ticket> = self.files.get(&id).map(|f| f.queue.iter().map(|w| w.request.ticket).collect()).unwrap_or_default();
            for ticket in tickets {
                self.refuse_waiter(now, id, ticket, Cause::Gone, out);
            }
            self.forget_if_idle(id);
        }
    }
}
