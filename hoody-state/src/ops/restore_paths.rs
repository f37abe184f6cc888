//! The paths of a restore of single files: which are asked for, which go together, and what became of each. No I/O.

use super::Op;
use crate::error::{Code, Error, Result};
use crate::id::ContainerId;
use crate::model::{FilesRestored, PathFailed, PathRestored, RestoreFiles};
use crate::name::SnapshotName;
use crate::services::databases::DATABASES;
use crate::services::files::{MOUNTED, below};
use crate::tree::TreePath;
use serde_json::json;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// The most paths of one request.
const MOST: usize = 1000;
/// What has the databases and the shares in it.
const HOODY: &str = "/hoody";

/// A request whose paths can be read.
pub(super) struct Request {
    paths: Vec<TreePath>,
    to: Option<TreePath>,
}

impl Request {
    /// Errors: `invalid_path`; `validation_error`: none or too many.
    pub(super) fn parse(files: &RestoreFiles) -> Result<Self> {
        let plain = files.paths.iter().map(|p| TreePath::new(p.as_bytes()));
        let mut paths = plain.chain(files.paths_encoded.iter().map(|p| TreePath::decode(p))).collect::<Result<Vec<_>>>()?;
        let mut seen = std::collections::HashSet::new();
        paths.retain(|p| seen.insert(p.clone()));
        let invalid = |field: &str, why: &str| Err(Error::new(Code::ValidationError, format!("{field}: {why}")).with_data(json!({ "field": field })));
        let to = match (&files.to, &files.to_encoded) {
            (Some(_), Some(_)) => return invalid("to_encoded", "there is `to` already: give one of the two"),
            (Some(to), None) => Some(TreePath::new(to.as_bytes())?),
            (None, Some(to)) => Some(TreePath::decode(to)?),
            (None, None) => None,
        };
        match paths.len() {
            0 => invalid("paths", "name at least one path"),
            n if n > MOST => invalid("paths", &format!("{n} are too many: at most {MOST} in one request")),
            _ => Ok(Request { paths, to }),
        }
    }

    /// Refuses what is wrong with the request as a whole. Errors: `invalid_path`, `not_in_volume`, `validation_error`.
    pub(super) fn check(&self, has_databases: bool) -> Result<()> {
        let Some(to) = &self.to else { return Ok(()) };
        allow(&to.join(b"x"), has_databases)?;
        let mut names = std::collections::HashSet::new();
        match self.paths.iter().find(|p| p.split().is_some_and(|(_, name)| !names.insert(name))) {
            None => Ok(()),
            Some(p) => {
                let message = format!("paths: {} and another path would get the same name in {}", p.shown(), to.shown());
                Err(Error::new(Code::ValidationError, message).with_data(json!({ "field": "paths" })))
            }
        }
    }
}

/// Whether a place of the container, which is a path without links, is one that files are restored to. Errors: `not_in_volume`, `invalid_path`.
pub(super) fn allow(place: &TreePath, has_databases: bool) -> Result<()> {
    if let Some(at) = MOUNTED.iter().find(|at| below(place, at).is_some()) {
        let message = format!("{at} is mounted in the running container: what is at {} is in no snapshot", place.shown());
        return Err(Error::new(Code::NotInVolume, message));
    }
    let refuse = |why: &str| Err(Error::new(Code::InvalidPath, format!("{} {why}", place.shown())));
    if place.is_root() || below(place, HOODY).is_some_and(|rest| rest.is_root()) {
        return refuse("has databases and mounts in it: name what is to be restored, such as /hoody/storage");
    }
    if has_databases && below(place, DATABASES).is_some() {
        return refuse("is among the databases: name it by its path in /hoody/databases, and without `to`");
    }
    Ok(())
}

/// How a path is restored.
enum How {
    /// From the container's own volume; with its number once it is staged.
    Own(Option<usize>),
    /// Among the databases, by its path there.
    Database(PathBuf),
    /// With another path, which it is beneath.
    With(usize),
}

struct One {
    path: TreePath,
    how: How,
    /// What became of it, once that is known.
    done: Option<Result<()>>,
}

/// All paths of a request.
pub(super) struct Paths {
    all: Vec<One>,
    to: Option<TreePath>,
}

impl Paths {
    pub(super) fn of(request: &Request, has_databases: bool) -> Self {
        let paths = &request.paths;
        let one = |path: &TreePath| {
            let above = |other: &TreePath| other != path && path.beneath(other).is_some();
            let with = paths.iter().position(above).filter(|_| request.to.is_none());
            let database = below(path, DATABASES).filter(|_| has_databases);
            let (how, done) = match (with, database) {
                (Some(n), _) => (How::With(n), None),
                (None, Some(rest)) if request.to.is_none() => (How::Database(OsStr::from_bytes(rest.as_bytes()).into()), None),
                (None, _) => (How::Own(None), allow(path, has_databases).err().map(Err)),
            };
            One { path: path.clone(), how, done }
        };
        Paths { all: paths.iter().map(one).collect(), to: request.to.clone() }
    }

    pub(super) fn to(&self) -> Option<&TreePath> {
        self.to.as_ref()
    }

    /// Whether anything of the container's own volume is to be restored.
    pub(super) fn has_own(&self) -> bool {
        self.all.iter().any(|p| matches!(p.how, How::Own(_)) && p.done.is_none())
    }

    /// Stages the paths of the container's own volume. Errors: that of a crash or of being cancelled; any other is the path's.
    pub(super) fn stage(&mut self, mut stage: impl FnMut(&TreePath) -> Result<usize>) -> Result<()> {
        for p in self.all.iter_mut().filter(|p| matches!(p.how, How::Own(_)) && p.done.is_none()) {
            match stage(&p.path) {
                Ok(number) => p.how = How::Own(Some(number)),
                Err(e) => p.done = Some(Err(of_path(e)?)),
            }
        }
        Ok(())
    }

    /// Places what was staged. Errors: as for [`Paths::stage`].
    pub(super) fn place(&mut self, mut place: impl FnMut(usize) -> Result<()>) -> Result<()> {
        for p in self.all.iter_mut().filter(|p| p.done.is_none()) {
            if let How::Own(Some(number)) = p.how {
                p.done = Some(match place(number) {
                    Ok(()) => Ok(()),
                    Err(e) => Err(of_path(e)?),
                });
            }
        }
        Ok(())
    }

    /// The paths among the databases, in order.
    pub(super) fn databases(&self) -> Option<Vec<PathBuf>> {
        let names: Vec<PathBuf> = self.all.iter().filter_map(|p| if let How::Database(name) = &p.how { Some(name.clone()) } else { None }).collect();
        (!names.is_empty()).then_some(names)
    }

    pub(super) fn databases_done(&mut self, done: Vec<Result<()>>) {
        let paths = self.all.iter_mut().filter(|p| matches!(p.how, How::Database(_)));
        for (path, done) in paths.zip(done) {
            // The log and the lock file of a database go with the database: nothing of their names is there to be restored.
            path.done = Some(done.map_err(|e| if e.code() == Code::BadPath { Error::new(Code::InvalidPath, e.message()) } else { e }));
        }
    }

    /// If every path has failed: removes what was begun, and fails with the error of the first, the results of all as its data.
    pub(super) fn require_some(&self, op: &Op, clear: impl FnOnce() -> Result<()>) -> Result<()> {
        let failed: Vec<PathFailed> = self.all.iter().filter_map(|p| p.done.as_ref()?.as_ref().err().map(|e| failure(&p.path, e))).collect();
        let own = self.all.iter().filter(|p| !matches!(p.how, How::With(_))).count();
        let Some(first) = self.all.iter().find_map(|p| p.done.as_ref()?.as_ref().err()) else { return Ok(()) };
        if failed.len() < own {
            return Ok(());
        }
        op.step("clear")?;
        clear()?;
        let message = if own == 1 {
            first.message().to_owned()
        } else {
            let some: Vec<String> = failed.iter().take(10).map(|f| format!("{}: {}", f.path, f.message)).collect();
            format!("none of the {own} paths can be restored: {}", some.join("; "))
        };
        Err(Error::new(first.code(), message).with_data(json!({ "failed": failed })))
    }

    /// What became of each.
    pub(super) fn answer(&self, id: &ContainerId, snapshot: &SnapshotName) -> FilesRestored {
        let (mut restored, mut failed) = (Vec::new(), Vec::new());
        for p in &self.all {
            // One that goes with another may go with one that goes with a third.
            let mut own = p;
            while let How::With(n) = own.how
                && let Some(above) = self.all.get(n)
            {
                own = above;
            }
            match &own.done {
                Some(Ok(())) => restored.push(PathRestored { path: p.path.shown(), path_encoded: p.path.encoded() }),
                Some(Err(e)) => failed.push(failure(&p.path, e)),
                None => failed.push(failure(&p.path, &Error::internal("it was not restored"))),
            }
        }
        FilesRestored { container_id: id.clone(), snapshot: snapshot.clone(), restored, failed, undo: None, operation_id: None }
    }
}

/// The error of one path; one that ends the operation is an error of this.
fn of_path(e: Error) -> Result<Error> {
    if matches!(e.code(), Code::Crashed | Code::OperationCancelled) { Err(e) } else { Ok(e) }
}

fn failure(path: &TreePath, e: &Error) -> PathFailed {
    PathFailed { path: path.shown(), path_encoded: path.encoded(), code: e.code().as_str().to_owned(), message: e.message().to_owned() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn request(paths: &[&str], to: Option<&str>) -> Request {
        let paths = paths.iter().map(|p| (*p).to_owned()).collect();
        Request::parse(&RestoreFiles { paths, to: to.map(str::to_owned), ..RestoreFiles::default() }).unwrap()
    }

    fn answer(paths: &Paths) -> (Vec<String>, Vec<(String, String)>) {
        let a = paths.answer(&ContainerId::generate(), &"s".parse().unwrap());
        (a.restored.into_iter().map(|r| r.path).collect(), a.failed.into_iter().map(|f| (f.path, f.code)).collect())
    }

    #[test]
    fn a_path_beneath_another_goes_with_it() {
        let mut paths = Paths::of(&request(&["/a/b/c", "/a", "/a/b", "/ab", "/a"], None), true);
        let mut staged = Vec::new();
        paths
            .stage(|p| {
                staged.push(p.shown());
                Ok(staged.len() - 1)
            })
            .unwrap();
        assert_eq!(staged, ["/a", "/ab"]);
        paths.place(|n| if n == 0 { Ok(()) } else { Err(Error::new(Code::FileNotFound, "gone")) }).unwrap();
        let (restored, failed) = answer(&paths);
        assert_eq!(restored, ["/a/b/c", "/a", "/a/b"]);
        assert_eq!(failed, [("/ab".to_owned(), "file_not_found".to_owned())]);
    }

    #[test]
    fn databases_are_apart_if_there_are_any() {
        let names = |has: bool| Paths::of(&request(&["/hoody/databases/a.db", "/srv", "/hoody/databases"], None), has).databases();
        assert_eq!(names(false), None);
        assert_eq!(names(true), Some(vec![PathBuf::from("")]), "the directory has the one in it");
        let paths = Paths::of(&request(&["/hoody/databases/a.db"], Some("/srv")), true);
        assert_eq!(answer(&paths).1, [("/hoody/databases/a.db".to_owned(), "invalid_path".to_owned())]);
    }

    #[test]
    fn what_ends_the_operation_is_no_failure_of_a_path() {
        for code in [Code::Crashed, Code::OperationCancelled] {
            let mut paths = Paths::of(&request(&["/a"], None), false);
            assert_eq!(paths.stage(|_| Err(Error::new(code, "end"))).unwrap_err().code(), code);
        }
    }

    #[test]
    fn places_that_are_not_on_the_disk_are_refused() {
        let code = |path: &str, databases| allow(&TreePath::new(path.as_bytes()).unwrap(), databases).err().map(|e| e.code());
        for (path, with, without) in [
            ("/etc/hosts", None, None),
            ("/", Some(Code::InvalidPath), Some(Code::InvalidPath)),
            ("/hoody", Some(Code::InvalidPath), Some(Code::InvalidPath)),
            ("/hoody/storage/x", None, None),
            ("/hoody/databases/x", Some(Code::InvalidPath), None),
            ("/hoody/shares/x", Some(Code::NotInVolume), Some(Code::NotInVolume)),
            ("/hoody/snapshots/s/etc", Some(Code::NotInVolume), Some(Code::NotInVolume)),
            ("/proc/1/root", Some(Code::NotInVolume), Some(Code::NotInVolume)),
            ("/process", None, None),
        ] {
            assert_eq!((code(path, true), code(path, false)), (with, without), "{path}");
        }
    }
}
