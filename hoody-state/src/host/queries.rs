use super::Host;
use crate::catalog::{Durability, containers, events, operations, tokens};
use crate::error::Result;
use crate::id::{EventId, OperationId, ProjectId, ServerId, TokenId};
use crate::model::{Event, EventFilter, Operation, PageRequest, Paged, PoolInfo, Reclaiming, Rights, Token};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

impl Host {
    /// How full the pool is, and what is being reclaimed.
    ///
    /// # Errors
    /// Those of the pool.
    pub fn pool(&self) -> Result<PoolInfo> {
        let s = self.0.store.space()?;
        let reserve = crate::model::space::reserve(s.total);
        let mut what: BTreeMap<String, u64> = BTreeMap::new();
        // The catalog of a read-only pool may not be readable either; that must be said all the same.
        let (reclaiming, open) =
            if s.read_only { Default::default() } else { self.0.catalog.read(|c| Ok((operations::reclaiming(c)?, operations::open(c)?)))? };
        for r in reclaiming {
            *what.entry(r.what).or_default() += 1;
        }
        for row in open.iter().filter(|r| r.kind == "container.delete") {
            if let Some(p) = self.0.engine.registry.get(&row.id) {
                let left = p.total.load(Ordering::Relaxed).saturating_sub(p.done.load(Ordering::Relaxed));
                *what.entry(format!("container {}", row.resource_id)).or_default() += left;
            }
        }
        Ok(PoolInfo {
            total: s.total,
            used: s.used,
            free: s.free,
            reserve,
            health: match s.read_only {
                true => "read_only",
                false if s.free < reserve => "low",
                false => "ok",
            }
            .into(),
            quotas: if self.0.store.uncounted().is_none() { "simple" } else { "unsupported" }.into(),
            quotas_reason: self.0.store.uncounted(),
            read_only: s.read_only,
            read_only_reason: s.read_only.then(|| self.0.pool_watch.read_only_error().message().to_owned()),
            image: self.0.pool_watch.image(&s),
            tasks: self.0.runtime.all_tasks(),
            reclaiming: what.into_iter().map(|(what, volumes)| Reclaiming { what, volumes }).collect(),
        })
    }

    /// A page of operations, newest first.
    ///
    /// # Errors
    /// `invalid_page`.
    pub fn operations(&self, page: &PageRequest) -> Result<Paged<Operation>> {
        self.operations_in(page, None)
    }

    /// A page of the operations of these projects and of the containers that they have now, newest first; `None`: of all operations.
    ///
    /// # Errors
    /// `invalid_page`.
    pub fn operations_in(&self, page: &PageRequest, only: Option<&[ProjectId]>) -> Result<Paged<Operation>> {
        let (rows, total) = self.0.catalog.read(|c| operations::page(c, page, only))?;
        Ok(Paged::new(rows.into_iter().map(|o| self.with_progress(o)).collect(), total, page))
    }

    /// How many operations are running.
    ///
    /// # Errors
    /// Those of the catalog.
    pub fn running_operations(&self) -> Result<u64> {
        self.0.catalog.read(operations::count_open)
    }

    /// How many containers there are of each status; a status that none has is absent.
    ///
    /// # Errors
    /// Those of the catalog.
    pub fn containers_by_status(&self) -> Result<BTreeMap<&'static str, u64>> {
        self.0.catalog.read(containers::by_status)
    }

    fn with_progress(&self, mut o: Operation) -> Operation {
        if let Some(p) = self.0.engine.registry.get(&o.id) {
            o.step = Some(p.step().to_owned()).filter(|s| !s.is_empty());
            o.done = Some(p.done.load(Ordering::Relaxed)).filter(|n| *n > 0);
            o.total = Some(p.total.load(Ordering::Relaxed)).filter(|n| *n > 0);
            if let Some(t) = p.transfer() {
                // What a stream will come to is known when it has ended.
                o.total_is_estimate = Some(true);
                o.sent = Some(t.sent);
                o.rate = Some(t.rate);
            }
        }
        o
    }

    /// One operation.
    ///
    /// # Errors
    /// `operation_not_found`.
    pub fn operation(&self, id: &OperationId) -> Result<Operation> {
        self.0.catalog.read(|c| operations::get(c, id)).map(|o| self.with_progress(o))
    }

    /// Asks a running operation to stop and undo what it began. Returns at once.
    ///
    /// # Errors
    /// `operation_not_found`, `operation_finished`, `operation_not_cancellable`.
    pub fn cancel_operation(&self, id: &OperationId) -> Result<Operation> {
        self.0.engine.cancel(id)?;
        self.operation(id)
    }

    /// Waits until an operation has ended, or the time is over.
    ///
    /// # Errors
    /// `operation_not_found`.
    pub fn wait_operation(&self, id: &OperationId, timeout: Duration) -> Result<Operation> {
        self.0.engine.registry.wait(id, timeout);
        self.operation(id)
    }

    /// Events that match, and how many there are in all.
    ///
    /// # Errors
    /// Those of the catalog.
    pub fn events(&self, filter: &EventFilter) -> Result<(Vec<Event>, u64)> {
        self.0.catalog.read(|c| events::list(c, self.0.catalog.user(), filter))
    }

    /// One event.
    ///
    /// # Errors
    /// `event_not_found`.
    pub fn event(&self, id: &EventId) -> Result<Event> {
        self.0.catalog.read(|c| events::get(c, self.0.catalog.user(), id))
    }

    /// Forgets one event.
    ///
    /// # Errors
    /// `event_not_found`.
    pub fn delete_event(&self, id: &EventId) -> Result<()> {
        self.write(Durability::Disk, |tx| tx.delete_event(id))
    }

    /// Forgets events before a time, or all; how many.
    ///
    /// # Errors
    /// Those of the catalog.
    pub fn delete_events(&self, before: Option<Timestamp>) -> Result<u64> {
        self.write(Durability::Disk, |tx| tx.delete_events(before))
    }

    /// How many events there are of each type, and of each kind of thing.
    ///
    /// # Errors
    /// Those of the catalog.
    pub fn event_stats(&self) -> Result<(BTreeMap<String, u64>, BTreeMap<String, u64>)> {
        self.0.catalog.read(events::stats)
    }

    /// Makes a token; the token itself is shown this once.
    ///
    /// # Errors
    /// `invalid_token_name`, `token_name_in_use`, `project_not_found`.
    pub fn create_token(&self, name: &str, projects: Option<Vec<ProjectId>>, rights: Rights) -> Result<(Token, String)> {
        self.0.catalog.create_token(self.0.clock.now(), Some(name), projects, rights, None)
    }

    /// Makes a replication token for one server; it need not be known yet.
    ///
    /// # Errors
    /// As for [`Host::create_token`].
    pub fn create_peer_token(&self, name: &str, projects: Option<Vec<ProjectId>>, peer: &ServerId) -> Result<(Token, String)> {
        self.0.catalog.create_token(self.0.clock.now(), Some(name), projects, Rights::Replication, Some(peer.clone()))
    }

    /// All tokens.
    ///
    /// # Errors
    /// Those of the catalog.
    pub fn tokens(&self) -> Result<Vec<Token>> {
        self.0.catalog.read(tokens::all)
    }

    /// A token as it is now; `None` once it is revoked.
    ///
    /// # Errors
    /// Those of the catalog.
    pub fn token(&self, id: &TokenId) -> Result<Option<Token>> {
        self.0.catalog.read(|c| tokens::get(c, id))
    }

    /// Revokes a token by id or name.
    ///
    /// # Errors
    /// `token_not_found`.
    pub fn revoke_token(&self, which: &str) -> Result<()> {
        self.0.catalog.revoke_token(self.0.clock.now(), which)
    }

    /// What a token may do, if it is one of ours.
    ///
    /// # Errors
    /// Those of the catalog.
    pub fn authenticate(&self, token: &str) -> Result<Option<Token>> {
        self.0.catalog.read(|c| tokens::authenticate(c, token))
    }
}
