//! Opening a pool, step by step. [`Step`] describes what a crash after each step leaves, and what the next open does with it.

use super::format::{self, Content};
use super::record::{self, FORMAT, PoolRecord};
use super::reserve::{Backing, Reserve};
use super::step::{Hook, Step};
use super::{DEFAULT_ID_BASE, DEFAULT_SIZE, IMAGE, MIN_SIZE, Pool, PoolConfig, grow, layout, mount};
use crate::error::{Code, Error, IoContext, Result};
use crate::id::ServerId;
use crate::sys::fs::set_no_cow;
use crate::sys::loops::{self, Attached};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::{Mode, fchmod};
use std::cell::Cell;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Undoes the mount if opening fails.
struct Undo<'a> {
    at: Option<PathBuf>,
    hook: &'a Hook<'a>,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if let Some(at) = &self.at
            && !self.hook.stopped.get()
            && let Err(e) = mount::unmount(at)
        {
            tracing::warn!("undo the mount of {}: {e}", at.display());
        }
    }
}

/// How long to wait for the lock of a process that has died.
const DEAD_HOLDER: Duration = Duration::from_secs(10);

/// Takes the lock on a data directory. A lock ends with the last process that has its descriptor, and a killed holder may leave a child between fork and exec
/// that still has it. So the lock's file names the process that took it, and the lock of a dead process is waited for.
pub(super) fn lock(data: &Path) -> Result<Flock<File>> {
    let path = data.join("pool.lock");
    let mut file = File::options().create(true).truncate(false).read(true).write(true).open(&path).io(|| format!("open {}", path.display()))?;
    let began = Instant::now();
    let end = Instant::now() + DEAD_HOLDER;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(held) => {
                let pid = std::process::id().to_string();
                // Overwrites the old text, which needs no space on a full disk. The lock holds without it too.
                match held.write_all_at(pid.as_bytes(), 0).and_then(|()| held.set_len(pid.len() as u64)) {
                    Err(e) if e.raw_os_error() != Some(nix::libc::ENOSPC) => return Err(Error::io(format!("write {}", path.display()), e)),
                    _ => return Ok(held),
                }
            }
            Err((back, Errno::EWOULDBLOCK)) if !holder_lives(&back) && Instant::now() < end => file = back,
            // A closed host of this process may have a thread that is still ending.
            Err((back, Errno::EWOULDBLOCK)) if holder(&back) == Some(std::process::id()) && began.elapsed() < OWN_PATIENCE => file = back,
            Err((_, Errno::EWOULDBLOCK)) => {
                return Err(Error::new(Code::DataInUse, format!("another server uses {}: stop it first, or give this one another --data", data.display())));
            }
            Err((_, e)) => return Err(Error::io(format!("lock {}", path.display()), e)),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How long a closed host of this process may take to release the lock.
const OWN_PATIENCE: Duration = Duration::from_secs(3);

/// Whether the process that took a lock is alive, as far as the lock's file names it.
fn holder_lives(file: &File) -> bool {
    let pid = holder(file).and_then(|p| i32::try_from(p).ok());
    pid.is_none_or(|pid| crate::sys::process::proc_stat(pid).is_some_and(|s| !matches!(s.state, 'Z' | 'X')))
}

fn holder(file: &File) -> Option<u32> {
    let mut text = [0; 16];
    let n = file.read_at(&mut text, 0).unwrap_or(0);
    std::str::from_utf8(&text[..n]).ok()?.parse().ok()
}

pub(super) fn open(config: &PoolConfig, stop_after: &dyn Fn(Step) -> bool) -> Result<Pool> {
    let hook = Hook { stop_after, stopped: Cell::new(false) };
    make_dir(&config.data, 0o700)?;
    let data = std::fs::canonicalize(&config.data).io(|| format!("resolve {}", config.data.display()))?;
    let lock = lock(&data)?;
    hook.passed(Step::Locked)?;

    if let Some(elsewhere) = super::Pool::mounted_run(config)?
        && std::fs::canonicalize(&config.run).ok().as_ref() != Some(&elsewhere)
    {
        return Err(Error::new(
            Code::PoolMountedElsewhere,
            format!(
                "the pool of {} is mounted under {}, with its containers: give --run {}, or `unmount` it there first",
                data.display(),
                elsewhere.display(),
                elsewhere.display()
            ),
        ));
    }
    let store = Store::of(config, &data)?;
    let announced = Announcement::read(&data)?;
    let expected = store.prepare(config, announced, &data, &hook)?;

    make_dir(&config.run, 0o710)?;
    let run = std::fs::canonicalize(&config.run).io(|| format!("resolve {}", config.run.display()))?;
    let root = run.join(super::MOUNT_POINT);
    make_dir(&root, 0o710)?;

    let announced = Announcement::read(&data)?;
    let mut attached = store.attach()?;
    hook.passed(Step::Attached)?;
    let device = attached.as_ref().map_or(store.path.as_path(), |a| &a.device);
    let mut undo = Undo { at: None, hook: &hook };
    if let Some(there) = mount::at(&root)? {
        check_mounted(&root, expected, &there)?;
        if super::read_only(&root)? {
            let record = record::read(&root)?.ok_or_else(|| foreign(&store.path, "a BTRFS file system without a pool's record"))?;
            let backing = store.backing(config);
            return Ok(Pool { data, run, image: (!store.is_device).then_some(store.path), backing, record, lock, new_mount: false, counts: false });
        }
        if config.reserve.is_some() && !store.is_device {
            mount::set_options(&root, store.discards(config))?;
        }
    } else {
        if announced != Some(expected) {
            look_inside(device, &root, &store.path)?;
        }
        mount::mount(device, &root, store.discards(config))?;
        undo.at = Some(root.clone());
    }
    hook.passed(Step::Mounted)?;

    let record = take_up(config, &root, expected, announced, &store.path, &hook)?;
    if announced.is_some() {
        Announcement::withdraw(&data)?;
    }
    lay_out(&run, &root, record.id_base)?;
    hook.passed(Step::Ready)?;
    if let Some(attached) = &mut attached {
        grow::follow(&store.path, attached, &hook)?;
    }
    let backing = store.backing(config);
    if let Some(backing) = &backing
        && config.reserve.is_some()
    {
        backing.settle(&root)?;
    }
    hook.passed(Step::FileSystemGrown)?;
    let new_mount = undo.at.take().is_some();
    tracing::info!(pool = %root.display(), id = %record.pool_id, "the pool is open");
    Ok(Pool { data, run, image: (!store.is_device).then_some(store.path), backing, record, lock, new_mount, counts: config.reserve.is_some() })
}

/// What the pool is stored on.
struct Store {
    path: PathBuf,
    is_device: bool,
}

impl Store {
    fn of(config: &PoolConfig, data: &Path) -> Result<Self> {
        let Some(device) = &config.device else { return Ok(Store { path: data.join(IMAGE), is_device: false }) };
        if config.size.is_some() {
            return Err(Error::new(Code::PoolSizeOfDevice, format!("a size was given for the device {}: only an image has one", device.display())));
        }
        let meta = std::fs::metadata(device).io(|| format!("stat {}", device.display()))?;
        if !meta.file_type().is_block_device() {
            return Err(Error::new(Code::NotADevice, format!("{} is not a block device: name one, or leave it out for an image", device.display())));
        }
        let path = std::fs::canonicalize(device).io(|| format!("resolve {}", device.display()))?;
        Ok(Store { path, is_device: true })
    }

    /// Makes sure that there is a BTRFS file system that may be ours, and returns its id. Writes only to what was empty, or to what an earlier call began.
    fn prepare(&self, config: &PoolConfig, announced: Option<Uuid>, data: &Path, hook: &Hook<'_>) -> Result<Uuid> {
        if let Some(size) = config.size
            && size < MIN_SIZE
        {
            return Err(Error::new(Code::PoolTooSmall, format!("{size} is too small for a pool: it needs at least {MIN_SIZE}")));
        }
        let content = if self.path.exists() { format::look(&self.path)? } else { Content::Empty };
        match content {
            Content::Btrfs(id) => {
                if let Some(size) = config.size {
                    grow::extend_image(&self.path, size)?;
                    hook.passed(Step::ImageGrown)?;
                }
                return Ok(id);
            }
            Content::Empty => {}
            Content::Unfinished(id) if announced == Some(id) => {}
            Content::Unfinished(_) => return Err(foreign(&self.path, "an unfinished BTRFS file system")),
            Content::Foreign(what) => return Err(foreign(&self.path, what)),
        }
        let id = match announced {
            Some(id) => id,
            None => Announcement::write(data)?,
        };
        hook.passed(Step::Announced)?;
        if self.is_device {
            format::make(&self.path, id, true)?;
            hook.passed(Step::Formatted)?;
        } else {
            self.make_image(config.size, id, hook)?;
        }
        Ok(id)
    }

    fn make_image(&self, size: Option<crate::units::Bytes>, id: Uuid, hook: &Hook<'_>) -> Result<()> {
        let new_image = self.path.with_extension("img.new");
        match std::fs::remove_file(&new_image) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(format!("remove {}", new_image.display()), e)),
            _ => {}
        }
        let what = || format!("make {}", new_image.display());
        let file = File::options().create_new(true).write(true).open(&new_image).io(what)?;
        fchmod(&file, Mode::S_IRUSR | Mode::S_IWUSR).io(what)?;
        // If the file system beneath copies on write, reserved space is only of use to a file without copy-on-write. Other file systems have no such flag.
        let _ = set_no_cow(&file);
        file.set_len(grow::rounded(size.unwrap_or(DEFAULT_SIZE)).0).io(what)?;
        hook.passed(Step::ImageMade)?;
        format::make(&new_image, id, false)?;
        hook.passed(Step::Formatted)?;
        std::fs::rename(&new_image, &self.path).io(|| format!("name the image {}", self.path.display()))?;
        sync_dir(self.path.parent().unwrap_or(Path::new("/")))?;
        hook.passed(Step::Named)
    }

    /// The image beneath the pool; `None` for a device.
    fn backing(&self, config: &PoolConfig) -> Option<Backing> {
        (!self.is_device).then(|| Backing::new(self.path.clone(), config.reserve.unwrap_or(Reserve::None)))
    }

    fn discards(&self, config: &PoolConfig) -> bool {
        self.is_device || config.reserve == Some(Reserve::None)
    }

    fn attach(&self) -> Result<Option<Attached>> {
        if self.is_device { Ok(None) } else { loops::attach(&self.path).map(Some) }
    }
}

fn foreign(path: &Path, what: &str) -> Error {
    Error::new(
        Code::PoolForeign,
        format!(
            "{} contains {what}, not a pool of hoody-state, and is left alone: choose another, or erase it first if it is not needed (wipefs -a {})",
            path.display(),
            path.display()
        ),
    )
}

/// `<data>/pool.format`: the id of a pool that is being created.
struct Announcement;

impl Announcement {
    fn path(data: &Path) -> PathBuf {
        data.join("pool.format")
    }

    fn read(data: &Path) -> Result<Option<Uuid>> {
        let path = Self::path(data);
        match std::fs::read_to_string(&path) {
            // An incomplete line means that the pool was not begun.
            Ok(text) => Ok(text.strip_suffix('\n').and_then(|t| t.parse().ok())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io(format!("read {}", path.display()), e)),
        }
    }

    fn write(data: &Path) -> Result<Uuid> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|e| Error::io("ask the kernel for random bytes", std::io::Error::other(e.to_string())))?;
        let id = uuid::Builder::from_random_bytes(bytes).into_uuid();
        let path = Self::path(data);
        let mut file = File::create(&path).io(|| format!("make {}", path.display()))?;
        file.write_all(format!("{id}\n").as_bytes()).and_then(|()| file.sync_all()).io(|| format!("write {}", path.display()))?;
        sync_dir(data)?;
        Ok(id)
    }

    fn withdraw(data: &Path) -> Result<()> {
        let path = Self::path(data);
        std::fs::remove_file(&path).io(|| format!("remove {}", path.display()))?;
        sync_dir(data)
    }
}

fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|d| d.sync_all()).io(|| format!("sync directory {}", dir.display()))
}

/// Whether the file system mounted at `root` is the one that is to be mounted there.
fn check_mounted(root: &Path, expected: Uuid, there: &crate::sys::mountinfo::MountEntry) -> Result<()> {
    let pool = File::open(root).io(|| format!("open {}", root.display()))?;
    if there.kind == "btrfs" && btrfs_uapi::filesystem::filesystem_info(pool.as_fd()).is_ok_and(|i| i.uuid == expected) {
        return Ok(());
    }
    let message = format!("{} is mounted at {}, where this pool belongs: unmount it, or choose another --run", there.source.display(), root.display());
    Err(Error::new(Code::MountPointInUse, message))
}

/// Reads the record of a file system without writing to it.
fn look_inside(device: &Path, root: &Path, shown: &Path) -> Result<()> {
    mount::mount_to_look(device, root)?;
    let record = record::read(root);
    mount::unmount(root)?;
    record?.map(|_| ()).ok_or_else(|| foreign(shown, "a BTRFS file system without a pool's record"))
}

/// Reads the record of a mounted pool, or creates the layout of a new pool and writes its record.
fn take_up(config: &PoolConfig, root: &Path, id: Uuid, announced: Option<Uuid>, shown: &Path, hook: &Hook<'_>) -> Result<PoolRecord> {
    let Some(mut record) = record::read(root)? else {
        if announced != Some(id) {
            return Err(foreign(shown, "a BTRFS file system without a pool's record"));
        }
        let id_base = config.id_base.unwrap_or(DEFAULT_ID_BASE);
        lay_out(root.parent().unwrap_or(root), root, id_base)?;
        hook.passed(Step::LaidOut)?;
        let record = PoolRecord {
            format: FORMAT,
            pool_id: id,
            id_base,
            server_id: ServerId::generate(),
            created_at: jiff::Timestamp::now(),
            server_name: config.server_name.clone(),
        };
        record::write(root, &record)?;
        hook.passed(Step::Recorded)?;
        return Ok(record);
    };
    if let Some(asked) = config.id_base
        && asked != record.id_base
    {
        let message = format!("the pool's files have ids from {} on, not from {asked} on: leave out --id-base, because it cannot be changed", record.id_base);
        return Err(Error::new(Code::IdBaseMismatch, message));
    }
    if config.server_name.is_some() && config.server_name != record.server_name {
        record.server_name.clone_from(&config.server_name);
        record::write(root, &record)?;
    }
    Ok(record)
}

/// Creates the pool's directories, and lets the containers' root (a plain user to the host) pass through them to its volume, but not list them.
fn lay_out(run: &Path, root: &Path, id_base: u32) -> Result<()> {
    let containers = root.join(layout::CONTAINERS);
    make_dir(&containers, 0o710)?;
    for name in [layout::IMAGES, layout::PROJECTS, layout::CATALOG, layout::STAGING, layout::TRASH] {
        make_dir(&root.join(name), 0o700)?;
    }
    for dir in [run, root, &containers] {
        let what = || format!("set group and mode of {}", dir.display());
        let meta = std::fs::metadata(dir).io(what)?;
        let ours = dir != run;
        if meta.gid() != id_base {
            std::os::unix::fs::chown(dir, None, Some(id_base)).io(what)?;
        }
        // An operator may have chosen the run directory: it only has to let the group pass.
        let mode = if ours { 0o710 } else { meta.mode() & 0o777 | 0o010 };
        if meta.mode() & 0o7777 != mode {
            std::fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(mode)).io(what)?;
        }
    }
    check_passable(run, id_base)?;
    let catalog = root.join(layout::CATALOG);
    File::open(&catalog).and_then(|d| set_no_cow(&d)).io(|| format!("turn copy-on-write off for {}", catalog.display()))
}

/// A container starts by walking to its volume as its own root, which is a plain user on the host: a closed directory on the way
/// would only be noticed as "permission denied" at the first start.
fn check_passable(run: &Path, id_base: u32) -> Result<()> {
    for dir in run.ancestors() {
        let meta = std::fs::metadata(dir).io(|| format!("look at {}", dir.display()))?;
        let passable = meta.mode() & 0o001 != 0 || (meta.gid() == id_base && meta.mode() & 0o010 != 0);
        if !passable {
            return Err(Error::new(
                Code::RunNotPassable,
                format!(
                    "containers cannot be reached under {}: {} does not let other users pass (mode {:o}); choose another --run, such as one under /run, or chmod o+x it",
                    run.display(),
                    dir.display(),
                    meta.mode() & 0o7777
                ),
            ));
        }
    }
    Ok(())
}

/// Creates directories. Those above the last get the usual mode; only the last is private.
fn make_dir(path: &Path, mode: u32) -> Result<()> {
    if let Some(above) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(above).io(|| format!("make directory {}", above.display()))?;
    }
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(path).io(|| format!("make directory {}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Starts a process that holds the lock of `data` for 300 ms, with `pid` in the lock's file.
    fn held_by_a_child(data: &Path, pid: u32) -> std::process::Child {
        let path = data.join("pool.lock");
        std::fs::write(&path, pid.to_string()).unwrap();
        let child = std::process::Command::new("flock").arg(&path).args(["sleep", "0.3"]).spawn().unwrap();
        while Flock::lock(File::open(&path).unwrap(), FlockArg::LockExclusiveNonblock).is_ok() {
            std::thread::sleep(Duration::from_millis(1));
        }
        child
    }

    #[test]
    fn a_killed_servers_child_keeps_the_next_server_waiting_only() {
        let dir = tempfile::tempdir().unwrap();
        let mut dead = std::process::Command::new("true").spawn().unwrap();
        dead.wait().unwrap();
        let mut child = held_by_a_child(dir.path(), dead.id());
        let held = lock(dir.path()).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("pool.lock")).unwrap(), std::process::id().to_string());
        assert_eq!(lock(dir.path()).unwrap_err().code(), Code::DataInUse);
        drop(held);
        child.wait().unwrap();
    }

    #[test]
    fn a_living_server_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = held_by_a_child(dir.path(), 1);
        let began = Instant::now();
        assert_eq!(lock(dir.path()).unwrap_err().code(), Code::DataInUse);
        assert!(began.elapsed() < Duration::from_millis(250));
        child.wait().unwrap();
    }
}
