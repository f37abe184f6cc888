//! Looks at the pool again and again: the reserve beneath its image grows ahead of use, and a pool that the kernel made read-only is reported.

use super::wake::Wake;
use crate::catalog::Durability;
use crate::catalog::records::Records;
use crate::error::{Code, Error, Result};
use crate::id::{EventId, ServerId};
use crate::model::{Event, PoolImage};
use crate::pool::{ImageSpace, Pool, Reserve};
use crate::snapshot::{SnapshotStore, Space};
use crate::units::Bytes;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often the pool is looked at, if nothing calls for more.
const LOOK: Duration = Duration::from_millis(200);
/// The same while nothing is written: an idle server hardly wakes.
const IDLE_LOOK: Duration = Duration::from_secs(2);
/// What containers may write in a second without using up the reserve between two looks and meeting ENOSPC too early.
const WRITTEN_PER_SECOND: u64 = 10 << 30;
/// The same for a burst that begins on an idle pool.
const BURST_PER_SECOND: u64 = 1 << 30;
/// What must be free beneath an image before a read-only pool is mounted anew, beside what the image lacks.
const ROOM_TO_RECOVER: Bytes = Bytes::mib(192);

type Recoverable = Box<dyn Fn() + Send + Sync>;

/// Looks after the pool's file system, and knows whether it can be written.
pub(crate) struct PoolWatch {
    /// Nothing: the store is not in a pool of ours. Its lock on the data directory is held while this lives.
    pool: Option<Pool>,
    store: Arc<dyn SnapshotStore>,
    records: Records,
    server: ServerId,
    /// Whether it was reported that the pool is read-only.
    reported: AtomicBool,
    /// Called once when a read-only pool could be mounted anew.
    recoverable: Mutex<Option<Recoverable>>,
}

impl PoolWatch {
    pub(crate) fn new(pool: Option<Pool>, store: Arc<dyn SnapshotStore>, records: Records, server: ServerId) -> Self {
        PoolWatch { pool, store, records, server, reported: AtomicBool::new(false), recoverable: Mutex::default() }
    }

    /// Starts the thread that looks, which ends with the host.
    pub(crate) fn start(self: &Arc<Self>, wake: Wake) -> Result<()> {
        let Some(pool) = &self.pool else { return Ok(()) };
        let pauses = Pauses::of(pool.reserve_setting());
        let weak = Arc::downgrade(self);
        let run = move || {
            let (mut seen, mut pause) = (None, pauses.busy);
            while !wake.is_closed() {
                let Some(watch) = weak.upgrade() else { return };
                let used = watch.look();
                drop(watch);
                pause = if used == seen { (pause * 2).min(pauses.idle) } else { pauses.busy };
                seen = used;
                std::thread::sleep(pause);
            }
        };
        std::thread::Builder::new().name("pool".into()).spawn(run).map_err(|e| Error::io("start the thread that looks after the pool", e))?;
        Ok(())
    }

    /// Calls `f` once, when the pool is read-only and could be mounted anew.
    pub(crate) fn on_recoverable(&self, f: Recoverable) {
        *self.recoverable.lock().unwrap_or_else(PoisonError::into_inner) = Some(f);
    }

    /// Why nothing can be written, and what to do.
    pub(crate) fn read_only_error(&self) -> Error {
        read_only_error(self.store.space().ok().and_then(|s| s.image).as_ref())
    }

    /// The image beneath the pool, if it has one.
    pub(crate) fn image(&self, space: &Space) -> Option<PoolImage> {
        let i = space.image?;
        let reserve_ahead = match self.pool.as_ref().and_then(Pool::reserve_setting) {
            Some(Reserve::Ahead(b)) => Some(b),
            Some(Reserve::Full) => None,
            Some(Reserve::None) | None => Some(Bytes(0)),
        };
        Some(PoolImage { size: i.size, offered: i.offered, reserved: i.reserved, reserve_ahead, beneath_free: i.beneath_free })
    }

    /// What the pool holds, if it could be seen.
    fn look(&self) -> Option<Bytes> {
        let space = self.store.space().inspect_err(|e| tracing::warn!(error = %e, "cannot look at the pool")).ok()?;
        if space.read_only {
            self.note_read_only(&space);
        } else if let Some(pool) = &self.pool
            && let Err(e) = pool.tend()
        {
            tracing::warn!(error = %e, "cannot bring the reserve beneath the pool's image to what it should be");
        }
        Some(space.used)
    }

    fn note_read_only(&self, space: &Space) {
        if !self.reported.swap(true, Ordering::Relaxed) {
            let why = self.read_only_error();
            tracing::error!("{why}");
            self.announce_read_only(why.message());
        }
        if can_recover(space)
            && let Some(f) = self.recoverable.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            f();
        }
    }

    /// The event is in the list only if the catalog could still be written.
    fn announce_read_only(&self, why: &str) {
        let payload = serde_json::json!({ "reason": why });
        let id = self.server.as_str().to_owned();
        if self.records.write(Durability::Process, |tx| tx.emit("pool.read_only", "pool", &id, None, payload.clone())).is_ok() {
            return;
        }
        let bus = &self.records.catalog.bus;
        bus.enqueue(vec![Event {
            id: EventId::generate(),
            event_type: "pool.read_only".into(),
            resource_type: "pool".into(),
            resource_id: id,
            user_id: self.records.catalog.user().clone(),
            payload,
            realm_ids: Vec::new(),
            created_at: self.records.now(),
            seq: 0,
        }]);
        bus.announce_queued();
    }
}

/// How long to sleep between two looks: the smaller the reserve, the sooner it is used up.
#[derive(Debug, PartialEq, Eq)]
struct Pauses {
    /// While something is written.
    busy: Duration,
    /// While nothing is.
    idle: Duration,
}

impl Pauses {
    fn of(reserve: Option<Reserve>) -> Self {
        let Some(Reserve::Ahead(b)) = reserve else { return Pauses { busy: LOOK, idle: IDLE_LOOK } };
        let used_up = |per_second: u64, most: Duration| Duration::from_millis(b.0.saturating_mul(1000) / per_second).clamp(Duration::from_millis(5), most);
        Pauses { busy: used_up(WRITTEN_PER_SECOND, LOOK), idle: used_up(BURST_PER_SECOND, IDLE_LOOK) }
    }
}

/// Whether a read-only pool would have room if it were mounted anew.
pub(crate) fn can_recover(space: &Space) -> bool {
    space.image.is_none_or(|i| i.beneath_free >= ROOM_TO_RECOVER)
}

/// Why nothing can be written to a pool with this image, and what to do.
pub(crate) fn read_only_error(image: Option<&ImageSpace>) -> Error {
    let why = match image {
        Some(i) if i.beneath_free < ROOM_TO_RECOVER => format!(
            "the file system beneath its image has {} left: free at least {ROOM_TO_RECOVER} there, then the server mounts the pool anew by itself",
            i.beneath_free
        ),
        _ => "the kernel could not write to it (its log says why: dmesg); once that is mended, the server mounts the pool anew when it is started".to_owned(),
    };
    Error::new(Code::PoolReadOnly, format!("the pool is read-only: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_reserve_is_looked_at_more_often() {
        assert_eq!(Pauses::of(Some(Reserve::default())), Pauses { busy: LOOK, idle: IDLE_LOOK });
        assert_eq!(Pauses::of(Some(Reserve::Ahead(Bytes::mib(200)))), Pauses { busy: Duration::from_millis(19), idle: Duration::from_millis(195) });
        assert_eq!(Pauses::of(None), Pauses { busy: LOOK, idle: IDLE_LOOK });
    }
}
