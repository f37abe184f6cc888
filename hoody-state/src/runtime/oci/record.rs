//! The record of a container's run, on disk, for the next server process.
//!
//! ```text
//! <run_dir>/containers/<container>/run.json     the run: written as an intent before the runtime is started, again with init's pid after it
//! <run_dir>/containers/<container>/<run>/       config.json, init.pid (by the runtime), runtime.log
//! <run_dir>/state/<container>-<run>/            the runtime's own state
//! ```
//!
//! A crash between any two writes leaves a record that lacks facts but has no false ones, and the record is checked against the kernel: the pid must be in the
//! container's cgroup and have the recorded start time. The directory does not survive a reboot; if it does, the boot id differs.

use crate::error::{Error, IoContext, Result};
use crate::id::{ContainerId, RunId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// `run.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub run: RunId,
    pub boot_id: String,
    pub started_at: Timestamp,
    /// Init, once it is known.
    pub init: Option<Init>,
    /// The state before the run.
    #[serde(default)]
    pub before: Before,
}

/// The state at the start of a run, with which its end is compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Before {
    /// The length of the console in bytes.
    pub console: u64,
    /// Processes of the container that the kernel had killed for lack of memory.
    pub killed_for_memory: u64,
}

/// A process, identified by pid and start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Init {
    pub pid: i32,
    /// In ticks after boot.
    pub start_time: u64,
}

/// The paths in a `run_dir`.
#[derive(Debug, Clone)]
pub(crate) struct Dirs {
    run_dir: PathBuf,
}

impl Dirs {
    pub fn new(run_dir: &Path) -> Self {
        Dirs { run_dir: run_dir.to_path_buf() }
    }

    /// The `--root` of the runtime.
    pub fn state(&self) -> PathBuf {
        self.run_dir.join("state")
    }

    pub fn container(&self, c: &ContainerId) -> PathBuf {
        self.run_dir.join("containers").join(c.as_str())
    }

    pub fn bundle(&self, c: &ContainerId, run: &RunId) -> PathBuf {
        self.container(c).join(run.as_str())
    }

    fn record(&self, c: &ContainerId) -> PathBuf {
        self.container(c).join("run.json")
    }

    /// The last run; `None` if there is none since boot, or if the record cannot be read.
    pub fn load(&self, c: &ContainerId, boot_id: &str) -> Result<Option<Record>> {
        let path = self.record(c);
        let text = match fs::read(&path) {
            Ok(t) => t,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).io(|| format!("read {}", path.display())),
        };
        let record: Option<Record> = serde_json::from_slice(&text).ok();
        if record.is_none() {
            tracing::warn!(path = %path.display(), "the record of a run cannot be read, and is ignored");
        }
        Ok(record.filter(|r| r.boot_id == boot_id))
    }

    /// Writes the record atomically for every reader, also if this process crashes. Nothing is synced: after a crash of the machine nothing runs.
    pub fn save(&self, c: &ContainerId, record: &Record) -> Result<()> {
        let path = self.record(c);
        let next = path.with_extension("json.new");
        let text = serde_json::to_vec(record).map_err(|e| Error::internal(format!("write the record of a run: {e}")))?;
        fs::write(&next, text).io(|| format!("write {}", next.display()))?;
        fs::rename(&next, &path).io(|| format!("rename to {}", path.display()))
    }

    /// Where the shares of a container that is being started are mounted, each in a namespace of its own.
    pub fn hub(&self) -> PathBuf {
        self.run_dir.join("hub")
    }

    /// Where the user namespace of a container that is being started is mounted, in the same namespace as the hub: a file.
    pub fn userns(&self) -> PathBuf {
        self.run_dir.join("userns")
    }

    /// The pid the runtime wrote.
    pub fn pid_file(&self, c: &ContainerId, run: &RunId) -> Option<i32> {
        fs::read_to_string(self.bundle(c, run).join("init.pid")).ok()?.trim().parse().ok().filter(|p| *p > 0)
    }

    /// Removes bundles and runtime states of the container's runs, but of `keep`.
    pub fn clear_runs(&self, c: &ContainerId, keep: Option<&RunId>) -> Result<()> {
        for entry in entries(&self.container(c))? {
            if let Some(run) = entry.file_name().to_str().and_then(|n| n.parse::<RunId>().ok()).filter(|r| Some(r) != keep) {
                self.clear_run(c, &run)?;
            }
        }
        let keep = keep.map(|k| oci_id(c, k));
        for entry in entries(&self.state())? {
            if let Some(name) = entry.file_name().to_str()
                && name.strip_prefix(c.as_str()).is_some_and(|rest| rest.starts_with('-'))
                && keep.as_deref() != Some(name)
            {
                remove_dir(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Removes the state and the bundle of a run that has ended, in this order, so that as long as anything is left, its bundle is.
    pub fn clear_run(&self, c: &ContainerId, run: &RunId) -> Result<()> {
        remove_dir(&self.state().join(oci_id(c, run)))?;
        remove_dir(&self.bundle(c, run))
    }

    /// Removes earlier runs that a killed server did not remove. Costs one read of the container's directory.
    pub fn clear_others(&self, c: &ContainerId, run: &RunId) -> Result<()> {
        for entry in entries(&self.container(c))? {
            if let Some(other) = entry.file_name().to_str().and_then(|n| n.parse::<RunId>().ok()).filter(|r| r != run) {
                self.clear_run(c, &other)?;
            }
        }
        Ok(())
    }

    /// Removes everything of the container.
    pub fn remove(&self, c: &ContainerId) -> Result<()> {
        self.clear_runs(c, None)?;
        remove_dir(&self.container(c))
    }

    /// Every container with a directory here.
    pub fn list(&self) -> Result<Vec<ContainerId>> {
        Ok(entries(&self.run_dir.join("containers"))?.iter().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect())
    }
}

/// The runtime's id of a run: a new one each time, so that removing one run never conflicts with the next.
pub(crate) fn oci_id(c: &ContainerId, run: &RunId) -> String {
    format!("{c}-{run}")
}

fn entries(dir: &Path) -> Result<Vec<fs::DirEntry>> {
    match fs::read_dir(dir) {
        Ok(e) => Ok(e.flatten().collect()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e).io(|| format!("list {}", dir.display())),
    }
}

fn remove_dir(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e).io(|| format!("remove {}", dir.display())),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_another_boot_or_of_nonsense_is_none() {
        let tmp = tempfile::tempdir().unwrap();
        let dirs = Dirs::new(tmp.path());
        let (c, run) = (ContainerId::generate(), RunId::generate());
        assert_eq!(dirs.load(&c, "b1").unwrap(), None);
        fs::create_dir_all(dirs.bundle(&c, &run)).unwrap();
        let record = Record {
            run: run.clone(),
            boot_id: "b1".into(),
            started_at: Timestamp::UNIX_EPOCH,
            init: Some(Init { pid: 7, start_time: 9 }),
            before: Before::default(),
        };
        dirs.save(&c, &record).unwrap();
        assert_eq!(dirs.load(&c, "b1").unwrap(), Some(record));
        assert_eq!(dirs.load(&c, "b2").unwrap(), None);
        assert_eq!(dirs.list().unwrap(), std::slice::from_ref(&c));
        fs::write(dirs.container(&c).join("run.json"), "{").unwrap();
        assert_eq!(dirs.load(&c, "b1").unwrap(), None);
        fs::create_dir_all(dirs.state().join(oci_id(&c, &run))).unwrap();
        let old = RunId::generate();
        for r in [&old, &run] {
            fs::create_dir_all(dirs.bundle(&c, r)).unwrap();
            fs::create_dir_all(dirs.state().join(oci_id(&c, r))).unwrap();
        }
        dirs.clear_others(&c, &run).unwrap();
        assert!(!dirs.bundle(&c, &old).exists() && !dirs.state().join(oci_id(&c, &old)).exists());
        assert!(dirs.bundle(&c, &run).exists() && dirs.state().join(oci_id(&c, &run)).exists());
        dirs.remove(&c).unwrap();
        assert_eq!(fs::read_dir(dirs.state()).unwrap().count(), 0);
        assert_eq!(dirs.list().unwrap(), []);
    }
}
