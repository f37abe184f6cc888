#![allow(clippy::unwrap_used)]
use super::*;
use crate::Code;
use crate::catalog::Catalog;
use crate::catalog::containers::ContainerRow;
use crate::catalog::containers::{ContainerSpec, ContainerState, Desired};
use crate::catalog::records::Records;
use crate::clock::SystemClock;
use crate::error::Error;
use crate::freeze::{FreezeState, Freezer};
use crate::id::{ContainerId, ProjectId};
use crate::locked_db::LockedDb;
use crate::locked_db::{Quiesced, Status as DbStatus};
use crate::model::DatabaseScope;
use crate::model::{Consistency, DatabasesChoice, Filesystem, RamdiskScope, Status};
use crate::name::SnapshotName;
use crate::runtime::Network;
use crate::services::dirs::ContainerDirs;
use crate::snapshot::memory::MemoryStore;
use crate::units::{Generation, VolumeId};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn row(databases: DatabaseScope, project: &ProjectId) -> ContainerRow {
    ContainerRow {
        id: ContainerId::generate(),
        project: project.clone(),
        name: "a".parse().unwrap(),
        status: Status::Running,
        status_since: Timestamp::UNIX_EPOCH,
        ssh_public_key: None,
        spec: ContainerSpec {
            color: String::new(),
            image: "debian/13".into(),
            ai: false,
            autostart: false,
            ramdisk: false,
            ramdisk_scope: RamdiskScope::Container,
            env: BTreeMap::new(),
            comment: None,
            source: None,
            origin: None,
            command: Vec::new(),
            cpu: None,
            memory_mib: None,
            disk: None,
            databases,
            filesystem: Filesystem::default(),
            network: Network::None,
            api_socket: false,
        },
        state: ContainerState {
            desired: Desired::Running,
            run: None,
            started_ms: None,
            head: None,
            since_ms: 0,
            origin: Generation(0),
            last_used: None,
            undo: None,
            message: None,
            partial: false,
            follows_databases: false,
            at: None,
            synced: None,
            synced_live: None,
            handover: None,
            identity: None,
        },
        created: Timestamp::UNIX_EPOCH,
        updated: Timestamp::UNIX_EPOCH,
    }
}

/// A container with writers, whose tasks wait in lock requests while the writes are held: such a task freezes only once its wait is ended.
#[derive(Default)]
struct Writers {
    frozen: bool,
    stuck: bool,
    /// A task is within a write transaction, and ends it unless it is frozen.
    in_transaction: bool,
    holds: usize,
    log: Vec<&'static str>,
}

#[derive(Clone, Default)]
struct Machine(Arc<Mutex<Writers>>);

impl Machine {
    fn with<T>(&self, f: impl FnOnce(&mut Writers) -> T) -> T {
        f(&mut self.0.lock().unwrap())
    }

    fn databases(&self) -> Databases {
        let records = Records { catalog: Arc::new(Catalog::in_memory().unwrap()), clock: Arc::new(SystemClock) };
        let store = Arc::new(MemoryStore::new());
        let roots = Arc::new(crate::rootfs::subvolume::SubvolumeRootFs::new(store.clone()));
        Databases::new(Some(Arc::new(self.clone())), store, roots, records, ContainerDirs { id_base: 0 })
    }
}

impl Freezer for Machine {
    fn freeze_waking(&self, c: &ContainerId, _: Duration, wake: &dyn Fn(&[i32])) -> crate::Result<FreezeState> {
        let waiting = self.with(|w| {
            w.log.push("freeze");
            w.holds > 0
        });
        if self.with(|w| w.stuck) {
            return Err(Error::new(Code::FreezeTimeout, format!("container {c} does not freeze")));
        }
        if waiting {
            wake(&[1]);
        }
        self.with(|w| w.frozen = true);
        Ok(FreezeState::Thawed)
    }

    fn thaw(&self, _: &ContainerId) -> crate::Result<FreezeState> {
        self.with(|w| {
            w.log.push("thaw");
            w.frozen = false;
        });
        Ok(FreezeState::Frozen)
    }

    fn state(&self, _: &ContainerId) -> crate::Result<FreezeState> {
        Ok(self.with(|w| if w.frozen { FreezeState::Frozen } else { FreezeState::Thawed }))
    }
}

struct Held(Machine);

impl Quiesced for Held {
    fn release(self: Box<Self>) -> crate::Result<bool> {
        Ok(true)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.with(|w| {
            w.holds -= 1;
            w.log.push("release");
        });
    }
}

impl LockedDb for Machine {
    fn path(&self, _: &str) -> PathBuf {
        PathBuf::new()
    }
    fn add_volume(&self, _: &str, backing: &Path) -> crate::Result<PathBuf> {
        Ok(backing.to_owned())
    }
    fn remove_volume(&self, _: &str) -> crate::Result<()> {
        Ok(())
    }
    fn rebind(&self, _: &str, _: &Path) -> crate::Result<()> {
        Ok(())
    }
    fn quiesce(&self, _: &[&str], _: Duration, _: Duration) -> crate::Result<Box<dyn Quiesced>> {
        self.with(|w| {
            if w.frozen && w.in_transaction {
                w.log.push("busy");
                return Err(Error::new(Code::DatabasesBusy, "a write transaction did not end"));
            }
            w.in_transaction = false;
            w.holds += 1;
            w.log.push("hold");
            Ok(())
        })?;
        Ok(Box::new(Held(self.clone())))
    }
    fn restore_database(&self, _: &str, _: &Path, _: &Path) -> crate::Result<()> {
        Ok(())
    }
    fn park(&self, pids: &[i32]) -> crate::Result<usize> {
        self.with(|w| w.log.push("park"));
        Ok(pids.len())
    }
    fn status(&self) -> crate::Result<DbStatus> {
        Ok(DbStatus::default())
    }
}

const LONG: Duration = Duration::from_secs(5);

#[test]
fn a_container_that_does_not_freeze_holds_up_no_writer() {
    let m = Machine::default();
    m.with(|w| w.stuck = true);
    let r = row(DatabaseScope::Project, &ProjectId::generate());
    let Err(e) = m.databases().hold_for_snapshot(&r, true, &m, LONG) else { panic!("it froze") };
    assert_eq!(e.code(), Code::FreezeTimeout);
    assert_eq!(m.with(|w| w.log.clone()), ["freeze"], "the writers of the project waited for a freeze that came to nothing");
}

#[test]
fn a_standstill_makes_no_task_wait_for_a_lock_before_it_freezes() {
    let m = Machine::default();
    let r = row(DatabaseScope::Project, &ProjectId::generate());
    let d = m.databases();
    let still = d.hold_for_snapshot(&r, true, &m, LONG).unwrap();
    assert!(m.with(|w| w.frozen && w.holds == 1));
    assert_eq!(still.release(), Consistency::DatabasesQuiesced);
    assert_eq!(m.with(|w| w.log.clone()), ["freeze", "hold", "release", "thaw"]);
}

#[test]
fn a_task_that_freezes_within_a_transaction_is_let_end_it() {
    let m = Machine::default();
    m.with(|w| w.in_transaction = true);
    let r = row(DatabaseScope::Private, &ProjectId::generate());
    let d = m.databases();
    let still = d.hold_for_snapshot(&r, true, &m, LONG).unwrap();
    assert!(m.with(|w| w.frozen && w.holds == 1 && !w.in_transaction));
    assert_eq!(still.release(), Consistency::DatabasesQuiesced);
    assert_eq!(m.with(|w| w.log.clone()), ["freeze", "busy", "thaw", "hold", "freeze", "park", "release", "thaw"]);
}

#[test]
fn a_restore_exchanges_the_databases_of_a_container_alone_and_asks_where_others_use_them() {
    let p = ProjectId::generate();
    let (me, other) = (row(DatabaseScope::Project, &p), row(DatabaseScope::Project, &p));
    let name: SnapshotName = "s".parse().unwrap();
    let plan = |others: &[ContainerRow], choice, empty| {
        let situation = plan::Situation { container: &me, snapshot: &name, present: VolumeId(7), choice };
        plan::decide(&situation, others, || empty)
    };
    let exchange = DatabasesPlan::Exchange { project: p.clone(), was: VolumeId(7) };
    assert_eq!(plan(&[], None, false).unwrap(), exchange);
    assert_eq!(plan(&[], Some(DatabasesChoice::Revert), false).unwrap(), exchange);
    let others = [other.clone()];
    assert_eq!(plan(&others, None, false).unwrap_err().code(), Code::DatabasesShared);
    assert_eq!(plan(&others, None, true).unwrap(), DatabasesPlan::Keep);
    assert_eq!(plan(&others, Some(DatabasesChoice::Keep), false).unwrap(), DatabasesPlan::Keep);
    assert_eq!(plan(&others, Some(DatabasesChoice::Revert), false).unwrap(), DatabasesPlan::Revert { project: p.clone() });
    assert!(plan::shares_them(&me, &other) && !plan::shares_them(&me, &me));
    assert!(!plan::shares_them(&me, &ContainerRow { status: Status::Deleting, ..other }));
    assert!(!plan::shares_them(&me, &row(DatabaseScope::Private, &p)));
}
