//! `check`: is what the catalog says true of the pool, the cgroups and the processes, and is there nothing else?
//!
//! Works beside a running server: what an open operation is changing just now is left out, and a first finding is looked at again.

use super::Host;
use super::reconcile::kept_in_trash;
use crate::catalog::containers::ContainerRow;
use crate::catalog::operations::OpenRow;
use crate::catalog::{Catalog, containers, images, operations, projects, snapshots, trash};
use crate::error::Result;
use crate::freeze::{FreezeState, Freezer};
use crate::id::{ContainerId, OperationId};
use crate::locked_db::LockedDb;
use crate::model::OperationStatus;
use crate::model::{Finding, Status};
use crate::ops::trash::place_of;
use crate::ramdisk::RamDisks;
use crate::runtime::Runtime;
use crate::services::databases::volume_name;
use crate::services::ramdisks::project_disk;
use crate::services::shares::incoming::expected_names;
use crate::share::{Receiver, ShareMount};
use crate::snapshot::{SnapshotStore, Volume};
use crate::sys::inside::Inside;
use crate::sys::mountinfo;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

impl Host {
    /// Compares the catalog with the world; `repair` removes what nothing refers to and corrects what is said wrongly of containers.
    ///
    /// # Errors
    /// What keeps it from looking.
    pub fn check(&self, repair: bool) -> Result<Vec<Finding>> {
        let places = Places { databases: self.0.databases.backend(), ramdisks: self.0.ramdisks.backend(), shares: Some(self.0.shares.backend()) };
        compare(&self.0.catalog, &*self.0.store, &*self.0.freezer, &*self.0.runtime, &places, repair)
    }
}

/// Where what containers have besides their volumes comes from.
#[derive(Clone, Copy)]
pub(crate) struct Places<'a> {
    pub databases: Option<&'a dyn LockedDb>,
    pub ramdisks: Option<&'a dyn RamDisks>,
    pub shares: Option<&'a dyn ShareMount>,
}

/// One look, and a second one if the first found anything: what was only passing is gone by then.
pub(crate) fn compare(
    catalog: &Catalog,
    store: &dyn SnapshotStore,
    freezer: &dyn Freezer,
    runtime: &dyn Runtime,
    places: &Places<'_>,
    repair: bool,
) -> Result<Vec<Finding>> {
    let look = Look { catalog, store, freezer, runtime, places };
    let mut found = look.once()?;
    if !found.is_empty() {
        std::thread::sleep(Duration::from_millis(300));
        let again = look.once()?;
        found.retain(|k, _| again.contains_key(k));
    }
    let mut out = Vec::new();
    for (key, problem) in found {
        let repaired = repair && look.repair(&problem)?;
        out.push(Finding { code: problem.code().to_owned(), message: key, repaired });
    }
    Ok(out)
}

enum Problem {
    PoolReadOnly,
    CatalogDamaged,
    LiveMissing,
    SnapshotMissing,
    ImageMissing,
    SnapshotWritable,
    OrphanVolume(Volume),
    OrphanTrash(OperationId),
    TrashMissing,
    OrphanRuntime(ContainerId),
    SaidRunning,
    RunsUnsaid(ContainerId),
    LeftFrozen(ContainerId),
    SaidPaused,
    OrphanRamdisk(String),
    DatabasesDead,
    DatabasesUnserved,
    DatabasesStale,
    SharesDiffer,
    OpenOperation,
    UnreadableOperation(OperationId),
}

impl Problem {
    fn code(&self) -> &'static str {
        match self {
            Problem::PoolReadOnly => "pool_read_only",
            Problem::CatalogDamaged => "catalog_damaged",
            Problem::LiveMissing => "live_missing",
            Problem::SnapshotMissing => "snapshot_missing",
            Problem::ImageMissing => "image_missing",
            Problem::SnapshotWritable => "snapshot_writable",
            Problem::OrphanVolume(_) => "orphan_volume",
            Problem::OrphanTrash(_) => "orphan_trash",
            Problem::TrashMissing => "trash_missing",
            Problem::OrphanRuntime(_) => "orphan_cgroup",
            Problem::SaidRunning => "not_running",
            Problem::RunsUnsaid(_) => "runs_unsaid",
            Problem::LeftFrozen(_) => "left_frozen",
            Problem::SaidPaused => "not_paused",
            Problem::OrphanRamdisk(_) => "orphan_ramdisk",
            Problem::DatabasesDead => "databases_dead",
            Problem::DatabasesUnserved => "databases_unserved",
            Problem::DatabasesStale => "databases_stale",
            Problem::SharesDiffer => "shares_differ",
            Problem::OpenOperation => "open_operation",
            Problem::UnreadableOperation(_) => "unreadable_operation",
        }
    }
}

struct Look<'a> {
    catalog: &'a Catalog,
    store: &'a dyn SnapshotStore,
    freezer: &'a dyn Freezer,
    runtime: &'a dyn Runtime,
    places: &'a Places<'a>,
}

type Problems = BTreeMap<String, Problem>;

impl Look<'_> {
    fn busy(&self) -> Result<(BTreeSet<String>, BTreeSet<OperationId>)> {
        let open = self.catalog.read(operations::open)?;
        Ok((open.iter().map(|r| r.resource_id.clone()).collect(), open.into_iter().map(|r| r.id).collect()))
    }

    fn once(&self) -> Result<Problems> {
        let mut p = Problems::new();
        let (mut busy, mut ops) = self.busy()?;
        if self.store.space()?.read_only {
            // Of what the kernel could not write, much cannot be read either until it is mounted anew.
            let said = "the pool is read-only, because the kernel could not write to it: free room on the disk beneath its image, then start the server";
            return Ok(Problems::from([(said.to_owned(), Problem::PoolReadOnly)]));
        }
        let sound: String = self.catalog.read(|c| Ok(c.query_row("PRAGMA quick_check(1)", [], |r| r.get(0))?))?;
        if sound != "ok" {
            p.insert(format!("the catalog is damaged: {sound}"), Problem::CatalogDamaged);
        }
        let (rows, images) = self.catalog.read(|c| Ok((containers::all(c, None)?, images::all(c)?)))?;
        let mut wanted: BTreeSet<Volume> = BTreeSet::new();
        let mut passing: Vec<(String, String, Problem)> = Vec::new();
        for i in &images {
            let v = Volume::Image(i.name.clone());
            if self.store.info(&v)?.is_none() {
                passing.push((i.name.to_string(), format!("image {} has no volume: delete it and import it again", i.name), Problem::ImageMissing));
            }
            wanted.insert(v);
        }
        for p in self.catalog.read(projects::ids)? {
            wanted.insert(Volume::Databases(p));
        }
        for r in &rows {
            let id = r.id.as_str().to_owned();
            passing.extend(self.container(r, &mut wanted)?.into_iter().map(|(m, p)| (id.clone(), m, p)));
        }
        for v in self.store.list(None)? {
            if wanted.contains(&v) {
                continue;
            }
            let of = match &v {
                Volume::Live(c) | Volume::Next(c) | Volume::NextDatabases(c) | Volume::Snapshot(c, _) | Volume::SnapshotDatabases(c, _) => c.to_string(),
                Volume::Image(n) => n.to_string(),
                Volume::Staging(op) if ops.iter().any(|o| crate::ops::copied::is_staging_of(o, op)) => continue,
                Volume::Staging(_) => String::new(),
                Volume::Databases(p) => p.to_string(),
            };
            passing.push((of, format!("volume {} is in no list: --repair deletes it", crate::pool::layout::path(&v).display()), Problem::OrphanVolume(v)));
        }
        passing.extend(self.trash(&ops)?);
        let known: BTreeSet<&ContainerId> = rows.iter().map(|r| &r.id).collect();
        for c in self.runtime.list()? {
            if !known.contains(&c) {
                passing.push((
                    c.to_string(),
                    format!("there is a cgroup or runtime state of container {c}, which does not exist: --repair removes it"),
                    Problem::OrphanRuntime(c),
                ));
            }
        }
        passing.extend(self.places(&rows)?);
        // An operation that began or ended meanwhile makes what was seen of its container worthless.
        let (later, later_ops) = self.busy()?;
        busy.extend(later);
        ops.extend(later_ops);
        p.extend(passing.into_iter().filter(|(of, _, _)| !busy.contains(of)).map(|(_, m, p)| (m, p)));
        p.extend(self.operations()?);
        Ok(p)
    }

    /// What is in the pool's trash for nobody, and what should be there and is not.
    fn trash(&self, ops: &BTreeSet<OperationId>) -> Result<Vec<(String, String, Problem)>> {
        let (kept, ids) = self.catalog.read(|c| Ok((kept_in_trash(c)?, trash::ids(c)?)))?;
        let there = self.store.trash()?;
        let mut p = Vec::new();
        for id in ids {
            if !there.contains(&place_of(&id)?) {
                p.push((id.to_string(), format!("container {id} is in the trash without its volumes: delete it from the trash"), Problem::TrashMissing));
            }
        }
        for op in there.into_iter().filter(|op| !ops.contains(op) && !kept.contains(op)) {
            p.push((String::new(), format!("the trash of operation {op} was not emptied: --repair empties it"), Problem::OrphanTrash(op)));
        }
        Ok(p)
    }

    /// RAM disks that are nobody's; databases and shares that a running container should see and does not, or the other way round.
    fn places(&self, rows: &[ContainerRow]) -> Result<Vec<(String, String, Problem)>> {
        let mut p = Vec::new();
        if let Some(disks) = self.places.ramdisks {
            let projects: BTreeSet<String> = self.catalog.read(projects::ids)?.iter().map(project_disk).collect();
            for name in disks.list()?.into_iter().filter(|n| !projects.contains(n) && !rows.iter().any(|r| r.id.as_str() == n)) {
                p.push((name.clone(), format!("the RAM disk {name} is nobody's: --repair removes it"), Problem::OrphanRamdisk(name)));
            }
        }
        if !self.same_uptime()? {
            return Ok(p);
        }
        let running: Vec<&ContainerRow> = rows.iter().filter(|r| matches!(r.status, Status::Running | Status::Paused)).collect();
        match self.places.databases.map(LockedDb::status) {
            Some(Ok(status)) => {
                for r in running.iter().filter(|r| self.store.path(&Volume::Live(r.id.clone())).is_some()) {
                    if !status.volumes.contains_key(&volume_name(r)) {
                        p.push((r.id.to_string(), format!("the databases of container {} are not served: restart it", r.id), Problem::DatabasesUnserved));
                    } else if !self.sees_databases(r) {
                        let message = format!("container {} does not see its databases, or those of a daemon that has ended: restart it", r.id);
                        p.push((r.id.to_string(), message, Problem::DatabasesStale));
                    }
                }
            }
            Some(Err(e)) => {
                p.push((String::new(), format!("the databases' daemon does not answer ({e}): a running server starts it again"), Problem::DatabasesDead))
            }
            None => {}
        }
        let now = jiff::Timestamp::now().as_second();
        for r in running {
            let (Some(shares), Some(run)) = (self.places.shares, self.runtime.running(&r.id)?) else { continue };
            let wanted = expected_names(self.catalog, now, r)?;
            // One that ends just now is no finding.
            let Ok(seen) = shares.attached(&Receiver { container: r.id.clone(), pid: run.pid }) else { continue };
            let seen: BTreeSet<String> = seen.into_keys().collect();
            if wanted != seen {
                p.push((
                    r.id.to_string(),
                    format!("container {} sees the shares {seen:?} and should see {wanted:?}: restart the server", r.id),
                    Problem::SharesDiffer,
                ));
            }
        }
        Ok(p)
    }

    /// Whether its databases, as they are served now, are mounted in a container. One that ends meanwhile is no finding.
    fn sees_databases(&self, r: &ContainerRow) -> bool {
        let (Some(db), Ok(Some(run))) = (self.places.databases, self.runtime.running(&r.id)) else { return true };
        let name = volume_name(r);
        // The run directory may be behind a symbolic link.
        let shown = |path: &Path| mountinfo::shown_at(&std::fs::canonicalize(path)?);
        let (Ok(Some((device, root))), Ok(mounts)) = (shown(&db.path(&name)), Inside::of(run.pid).and_then(|i| i.mounts())) else { return true };
        // Wherever it is: a container may rename what is above.
        mounts.iter().any(|m| m.device == device && m.root == root)
    }

    /// Whether the pool was not unmounted since a server last ran on it.
    fn same_uptime(&self) -> Result<bool> {
        Ok(self.catalog.meta("boot")?.as_deref() != Some(crate::catalog::UNMOUNTED))
    }

    /// Rows of the journal that nobody can be working on: those of another uptime, and those that this version cannot read.
    fn operations(&self) -> Result<Problems> {
        let stale = self.catalog.meta("boot")?.as_deref() != Some(crate::sys::process::boot_id()?.as_str());
        let mut p = Problems::new();
        for row in self.catalog.read(operations::open)? {
            let OpenRow { id, kind, resource_type, resource_id, .. } = &row;
            if let Some(why) = crate::ops::all::unreadable(&row) {
                let what = format!("operation {id} ({kind} of {resource_type} {resource_id}) cannot be read, so {resource_type} {resource_id} is locked");
                let then = "start the version that wrote it, or let --repair close it as failed and restart the server";
                p.insert(format!("{what} ({why}): {then}"), Problem::UnreadableOperation(id.clone()));
            } else if stale {
                let message = format!("operation {id} ({kind}) is open since before this uptime: start the server, which finishes or undoes it");
                p.insert(message, Problem::OpenOperation);
            }
        }
        Ok(p)
    }

    /// Closes a row of the journal that cannot be read.
    fn close_unreadable(&self, id: &OperationId) -> Result<bool> {
        let why = crate::error::Error::internal("closed by check --repair: this version could not read it; what it had begun was left as it is");
        let now = crate::clock::Clock::now(&crate::clock::SystemClock);
        self.catalog.write(crate::catalog::Durability::Disk, now, |tx| {
            tx.free_key_of(id)?;
            tx.close_operation(id, OperationStatus::Failed, Some(&why))
        })?;
        Ok(true)
    }

    fn container(&self, r: &ContainerRow, wanted: &mut BTreeSet<Volume>) -> Result<Vec<(String, Problem)>> {
        let mut p = Vec::new();
        let id = &r.id;
        let live = Volume::Live(id.clone());
        if self.store.info(&live)?.is_none() && !r.state.partial {
            p.push((
                format!("container {id} has no live volume: make an image of one of its snapshots and a container of that, then delete it"),
                Problem::LiveMissing,
            ));
        }
        wanted.insert(live);
        for s in self.catalog.read(|c| snapshots::all(c, id))? {
            let v = Volume::Snapshot(id.clone(), s.snapshot.name.clone());
            match self.store.info(&v)? {
                None => p.push((format!("snapshot {} of container {id} has no volume: delete it", s.snapshot.name), Problem::SnapshotMissing)),
                Some(i) if !i.read_only => p.push((format!("snapshot {} of container {id} is writable", s.snapshot.name), Problem::SnapshotWritable)),
                Some(_) => {}
            }
            wanted.insert(v);
            // Whether it took databases along is the pool's to say.
            wanted.insert(Volume::SnapshotDatabases(id.clone(), s.snapshot.name.clone()));
        }
        if !self.same_uptime()? {
            // After a reboot or an unmount nothing runs, whatever the rows say: the next start brings the two together.
            return Ok(p);
        }
        let runs = self.runtime.running(id)?.is_some();
        let frozen = match self.freezer.state(id) {
            Ok(s) => s == FreezeState::Frozen,
            Err(e) if e.is_not_found() => false,
            Err(e) => return Err(e),
        };
        match (r.status, runs, frozen) {
            (Status::Running | Status::Paused, false, _) => {
                p.push((format!("container {id} is said to be {} and does not run: restart the server", r.status), Problem::SaidRunning))
            }
            (Status::Running, true, true) => {
                p.push((format!("container {id} is said to run and is frozen: --repair thaws it"), Problem::LeftFrozen(id.clone())))
            }
            (Status::Paused, true, false) => p.push((format!("container {id} is said to be paused and runs: resume it"), Problem::SaidPaused)),
            (Status::Stopped | Status::Failed, true, _) => {
                p.push((format!("container {id} is said to be {} and runs: --repair kills it", r.status), Problem::RunsUnsaid(id.clone())));
            }
            _ => {}
        }
        Ok(p)
    }

    fn repair(&self, p: &Problem) -> Result<bool> {
        match p {
            Problem::OrphanVolume(v) => self.store.delete(v)?,
            Problem::OrphanTrash(op) => self.store.empty_trash(op, &mut |_, _| {})?,
            Problem::OrphanRuntime(c) => return self.runtime.remove(c).map(|()| true),
            Problem::RunsUnsaid(c) => return self.runtime.kill(c).map(|()| true),
            Problem::LeftFrozen(c) => return self.freezer.thaw(c).map(|_| true),
            Problem::OrphanRamdisk(name) => return self.places.ramdisks.map_or(Ok(false), |d| d.remove(name).map(|()| true)),
            Problem::UnreadableOperation(id) => return self.close_unreadable(id),
            _ => return Ok(false),
        };
        self.store.sync()?;
        Ok(true)
    }
}
