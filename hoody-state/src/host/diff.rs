//! What differs between a snapshot and another tree.

use super::{Caller, Host};
use crate::diff::options::{Method, Options};
use crate::diff::wire::Cursor;
use crate::diff::{Kind, Record};
use crate::error::{Code, Error, Result};
use crate::id::ContainerId;
use crate::model::mount::SNAPSHOTS;
use crate::model::{DiffCounts, DiffLine, DiffMethod, DiffRecord, DiffRequest, DiffSide, DiffStat, DiffSummary, NotCovered, StatWord, SummaryWord};
use crate::ops;
use crate::ops::diff::Tree;
use crate::ops::diff_databases::Candidates;
use crate::services::databases::DATABASES;
use crate::services::files::MOUNTED;
use crate::tree::{Last, TreePath, encoded, shown};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

impl Host {
    /// Gives what differs between the snapshot `at` of a container and another tree to `line`: one record for each name, in the order of the paths, or counts with
    /// `stat`; then, if asked for, a line for each database with the rows of its tables; and returns the summary. See [`crate::diff`] for what records mean.
    /// Nothing is locked and nothing is changed: for `live` a temporary snapshot is made and deleted. `stop` is asked now and then; `true` ends the work.
    ///
    /// Cost: follows what changed since the two parted. Memory is bounded.
    ///
    /// # Errors
    /// `container_not_found`, `snapshot_not_found`, also if a snapshot is deleted meanwhile; `file_not_found` for a path that neither tree has; `diff_needs_walk` (see [`DiffRequest::walk`]), `diff_too_large`,
    /// `diff_unsupported`, `invalid_page` for a cursor, `operation_cancelled`, `pool_full`, `operation_state_conflict` for a container without files, and those of `line`.
    pub fn diff(
        &self,
        id: &ContainerId,
        at: &str,
        request: &DiffRequest,
        stop: &(dyn Fn() -> bool + Sync),
        line: &mut dyn FnMut(DiffLine) -> Result<()>,
    ) -> Result<DiffSummary> {
        let old = ops::diff::tree(&self.0, id, at)?;
        let new = ops::diff::tree(&self.0, request.to_container.as_ref().unwrap_or(id), &request.to)?;
        let cursor = request.cursor.as_deref().map(Cursor::read).transpose()?;
        let options = Options {
            walk: request.walk,
            times: request.times,
            below: request.path.clone(),
            from: cursor.as_ref().map(|c| c.path().to_vec()).unwrap_or_default(),
            stop: Some(stop),
        };
        let wanted = request.databases.then(RefCell::<Candidates>::default);
        let mut page =
            Page { request, cursor, last: None, more: false, counts: DiffCounts::default(), stats: BTreeMap::new(), wanted: wanted.as_ref(), line: &mut *line };
        let outcome = ops::diff::compare(&self.0, &Caller::default(), (&old, &new), &options, &mut |r| page.take(&r), wanted.as_ref())?;
        let next_cursor = page.more.then(|| page.last.as_ref().map(Cursor::text)).flatten();
        let counts = page.end()?;
        if counts.names() == 0 && request.cursor.is_none() {
            self.one_has(&request.path, [&old, &new])?;
        }
        for database in outcome.counted.databases {
            line(DiffLine::Database(database))?;
        }
        Ok(DiffSummary {
            kind: SummaryWord::Summary,
            method: match outcome.compared.method {
                Method::Changes => DiffMethod::Changes,
                Method::Scan => DiffMethod::Scan,
                Method::Walk => DiffMethod::Walk,
            },
            inodes: outcome.compared.inodes,
            records: counts.names(),
            counts,
            next_cursor,
            databases_left_out: outcome.counted.left_out,
            not_covered: not_covered(outcome.databases),
            from: side(old),
            to: side(new),
        })
    }
}

impl Host {
    /// Refuses a path at which neither tree has anything: it is not the same as one where nothing changed. What cannot be looked up passes.
    fn one_has(&self, path: &[u8], trees: [&Tree; 2]) -> Result<()> {
        let path = match TreePath::new(path) {
            Ok(path) if !path.is_root() => path,
            _ => return Ok(()),
        };
        let missing = |tree: &Tree| {
            let found = self.files().place(&tree.container, tree.snapshot.as_ref(), &path).and_then(|place| place.find(Last::Keep));
            found.is_err_and(|e| matches!(e.code(), Code::FileNotFound | Code::NotADirectory))
        };
        if trees.into_iter().all(missing) {
            return Err(Error::new(Code::FileNotFound, format!("neither state has {}", path.shown())));
        }
        Ok(())
    }
}

fn side(tree: Tree) -> DiffSide {
    DiffSide { container_id: tree.container.id, snapshot: tree.snapshot }
}

fn not_covered(databases: bool) -> Vec<NotCovered> {
    let mounted = MOUNTED.iter().map(|path| NotCovered {
        path: (*path).to_owned(),
        reason: match *path {
            "/ramdisk" => "the RAM disk is in memory, and in no snapshot",
            SNAPSHOTS => "it shows the container's snapshots, and is an empty directory in each of them",
            "/hoody/shares" => "shares are directories of other containers, and in no snapshot",
            _ => "it is mounted in the running container, and in no snapshot",
        }
        .to_owned(),
    });
    let without = (!databases).then(|| NotCovered { path: DATABASES.into(), reason: "not both states have databases of the project".into() });
    mounted.chain(without).collect()
}

/// Records on their way to one answer.
struct Page<'a> {
    request: &'a DiffRequest,
    cursor: Option<Cursor>,
    last: Option<Cursor>,
    more: bool,
    counts: DiffCounts,
    stats: BTreeMap<Vec<u8>, DiffCounts>,
    wanted: Option<&'a RefCell<Candidates>>,
    line: &'a mut dyn FnMut(DiffLine) -> Result<()>,
}

impl Page<'_> {
    fn take(&mut self, record: &Record) -> Result<ControlFlow<()>> {
        let place = Cursor::behind(record);
        if self.cursor.as_ref().is_some_and(|c| place <= *c) {
            return Ok(ControlFlow::Continue(()));
        }
        let shown = DiffRecord::from(record);
        if self.request.stat {
            self.note(record);
            self.counts.add(&shown);
            self.stats.entry(self.group(record)).or_default().add(&shown);
            return Ok(ControlFlow::Continue(()));
        }
        if self.request.limit.is_some_and(|limit| self.counts.names() >= limit) {
            self.more = true;
            return Ok(ControlFlow::Break(()));
        }
        self.note(record);
        self.counts.add(&shown);
        self.last = Some(place);
        (self.line)(DiffLine::Record(shown))?;
        Ok(ControlFlow::Continue(()))
    }

    fn note(&self, record: &Record) {
        if let Some(wanted) = self.wanted {
            wanted.borrow_mut().see(record);
        }
    }

    /// The first name beneath the path that was asked for.
    fn group(&self, record: &Record) -> Vec<u8> {
        let below = &self.request.path;
        let path = match &record.kind {
            // What was moved out of there counts where it was.
            Kind::Renamed { from } if !record.path.starts_with(below) => from,
            _ => &record.path,
        };
        let start = if below.is_empty() { 0 } else { below.len() + 1 };
        let end = path.iter().skip(start).position(|b| *b == b'/').map_or(path.len(), |n| start + n);
        path[..end].to_vec()
    }

    fn end(self) -> Result<DiffCounts> {
        for (path, counts) in self.stats {
            let path = [b"/", &path[..]].concat();
            (self.line)(DiffLine::Stat(DiffStat { kind: StatWord::Stat, path: shown(&path), path_encoded: encoded(&path), counts }))?;
        }
        Ok(self.counts)
    }
}
