//! What should be true: maps, and what each action does to them.

use hoody_state::Code;
use hoody_state::jiff::Timestamp;
use hoody_state::model::{Status, Verb};
use hoody_state::name::SnapshotName;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Several reduce to the same canonical name (`cd`), and one is what a second `a` is called (`a-2`).
pub const ALIASES: [&str; 7] = ["a", "b", "- -c d", "日本", "cd", "c.d", "a-2"];
pub const IMAGES: [&str; 3] = ["tiny", "golden", "team/other"];
pub const NAMES: [&str; 3] = ["one", "two", "three"];
pub const PATHS: [&str; 3] = ["etc/passwd", "hoody/storage/x", "y"];

#[derive(Debug, Clone)]
pub enum Action {
    Create {
        name: usize,
        image: usize,
        autostart: bool,
    },
    Delete {
        name: usize,
    },
    Write {
        name: usize,
        path: usize,
        value: u8,
    },
    Remove {
        name: usize,
        path: usize,
    },
    Snapshot {
        name: usize,
        alias: Option<usize>,
        days: Option<u8>,
        replace: bool,
    },
    Restore {
        name: usize,
        which: usize,
        keep: Option<usize>,
        start: Option<bool>,
    },
    Undo {
        name: usize,
    },
    Rename {
        name: usize,
        which: usize,
        alias: Option<usize>,
    },
    Pin {
        name: usize,
        which: usize,
        pin: bool,
    },
    DeleteSnapshot {
        name: usize,
        which: usize,
    },
    Advance {
        hours: u8,
    },
    Lifecycle {
        name: usize,
        verb: Verb,
    },
    InitExits {
        name: usize,
    },
    FailNextStart,
    Stuck {
        name: usize,
        stuck: bool,
    },
    ImageOf {
        image: usize,
        name: usize,
        which: usize,
    },
    DeleteImage {
        image: usize,
    },
    DeleteProject,
    /// `gone`: its init ends while no server runs.
    RestartServer {
        gone: Option<usize>,
    },
    /// The server dies at this step from now, and is started again.
    DieIn {
        steps: u8,
    },
    Reboot,
    PoolFull {
        full: bool,
    },
}

pub type Files = BTreeMap<String, Vec<u8>>;

#[derive(Debug, Clone, PartialEq)]
pub struct Snap {
    pub alias: Option<String>,
    pub created: Timestamp,
    pub last_used: Option<Timestamp>,
    pub expires: Option<Timestamp>,
    pub parent: Option<String>,
    pub pinned: bool,
    pub files: Files,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Con {
    pub status: Status,
    pub files: Files,
    pub snaps: BTreeMap<String, Snap>,
    pub head: Option<String>,
    pub since: Timestamp,
    pub last_used: Option<String>,
    pub undo: Option<String>,
    pub autostart: bool,
    pub image: String,
}

impl Con {
    /// The alias wins over the canonical name.
    pub fn find(&self, which: &str) -> Option<String> {
        self.by_alias(which).or_else(|| self.snaps.contains_key(which).then(|| which.to_owned()))
    }

    /// As [`Con::find`], unless the word means one snapshot by its alias and another by its canonical name.
    fn find_unambiguous(&self, which: &str) -> Result<String, Code> {
        let found = self.find(which).ok_or(Code::SnapshotNotFound)?;
        if found != which && self.snaps.contains_key(which) { Err(Code::SnapshotAmbiguous) } else { Ok(found) }
    }

    /// The snapshot that is shown under this name: its alias, or its canonical name if it has none.
    fn showing(&self, name: &str) -> Option<String> {
        self.by_alias(name).or_else(|| self.snaps.get(name).is_some_and(|s| s.alias.is_none()).then(|| name.to_owned()))
    }

    fn by_alias(&self, alias: &str) -> Option<String> {
        self.snaps.iter().find(|(_, s)| s.alias.as_deref() == Some(alias)).map(|(n, _)| n.clone())
    }

    /// A word for one of the snapshots, by its name or its alias, or for none.
    pub fn word(&self, which: usize) -> String {
        let mut words: Vec<String> = self.snaps.keys().cloned().collect();
        words.extend(self.snaps.values().filter_map(|s| s.alias.clone()));
        words.push("no such".to_owned());
        words[which % words.len()].clone()
    }

    fn free(&self, wanted: SnapshotName) -> String {
        let mut n = 1;
        let mut name = wanted.clone();
        while self.find(name.as_str()).is_some() {
            n += 1;
            name = wanted.numbered(n);
        }
        name.to_string()
    }

    fn drop_snapshot(&mut self, name: &str) {
        let Some(gone) = self.snaps.remove(name) else { return };
        for s in self.snaps.values_mut().filter(|s| s.parent.as_deref() == Some(name)) {
            s.parent.clone_from(&gone.parent);
        }
        if self.head.as_deref() == Some(name) {
            self.head = gone.parent;
        }
        if self.undo.as_deref() == Some(name) {
            self.undo = None;
        }
    }

    fn up(&self) -> bool {
        matches!(self.status, Status::Running | Status::Paused)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    pub cons: BTreeMap<String, Con>,
    pub images: BTreeMap<String, Files>,
    pub now: Timestamp,
    pub full: bool,
    pub fail: bool,
    pub stuck: BTreeSet<String>,
}

type Said = Result<(), Code>;

fn canonical(alias: Option<&str>, now: Timestamp) -> SnapshotName {
    SnapshotName::canonical(alias.map(|a| a.parse().unwrap()).as_ref(), now)
}

fn alias(i: Option<usize>) -> Option<&'static str> {
    i.map(|i| ALIASES[i % ALIASES.len()])
}

impl Model {
    pub fn new(now: Timestamp) -> Self {
        let images = BTreeMap::from([("tiny".to_owned(), Files::new())]);
        Model { cons: BTreeMap::new(), images, now, full: false, fail: false, stuck: BTreeSet::new() }
    }

    fn con(&mut self, name: usize) -> Result<&mut Con, Code> {
        self.cons.get_mut(NAMES[name]).ok_or(Code::ContainerNotFound)
    }

    fn start(&mut self) -> bool {
        !std::mem::take(&mut self.fail)
    }

    /// Does it, and says which error the host gives.
    pub fn apply(&mut self, action: &Action) -> Said {
        let said = self.act(action);
        self.expire();
        said
    }

    fn act(&mut self, action: &Action) -> Said {
        let now = self.now;
        let full = self.full;
        match *action {
            Action::Create { name, image, autostart } => {
                let files = self.images.get(IMAGES[image]).cloned().ok_or(Code::ImageNotFound)?;
                let name = NAMES[name].to_owned();
                if full {
                    return Err(Code::PoolFull);
                }
                if self.cons.contains_key(&name) {
                    return Err(Code::ContainerNameInUse);
                }
                let status = if self.start() { Status::Running } else { Status::Failed };
                let image = IMAGES[image].to_owned();
                let con = Con { status, files, snaps: BTreeMap::new(), head: None, since: now, last_used: None, undo: None, autostart, image };
                self.cons.insert(name, con);
            }
            Action::Delete { name } => {
                if self.con(name)?.snaps.values().any(|s| s.pinned) {
                    return Err(Code::SnapshotPinned);
                }
                self.cons.remove(NAMES[name]);
                self.stuck.remove(NAMES[name]);
            }
            Action::Write { name, path, value } => {
                self.con(name)?.files.insert(PATHS[path].to_owned(), vec![value; 3]);
            }
            Action::Remove { name, path } => {
                self.con(name)?.files.remove(PATHS[path]);
            }
            Action::Snapshot { name, alias: a, days, replace } => self.snapshot(name, alias(a), days, replace)?,
            Action::Restore { name, which, keep, start } => {
                let c = self.con(name)?;
                let target = c.find(&c.word(which)).ok_or(Code::SnapshotNotFound)?;
                self.restore(name, target, alias(keep), start)?;
            }
            Action::Undo { name } => {
                let undo = self.con(name)?.undo.clone().ok_or(Code::NothingToUndo)?;
                self.restore(name, undo, None, None)?;
            }
            Action::Lifecycle { name, verb } => self.lifecycle(name, verb)?,
            Action::InitExits { name } => {
                let c = self.con(name)?;
                if c.up() {
                    c.status = Status::Stopped;
                }
            }
            Action::Stuck { name, stuck } => {
                self.con(name)?;
                if stuck {
                    self.stuck.insert(NAMES[name].to_owned())
                } else {
                    self.stuck.remove(NAMES[name])
                };
            }
            Action::ImageOf { .. } | Action::DeleteImage { .. } => self.change_image(action)?,
            Action::DeleteProject => {
                if self.cons.values().any(|c| c.snaps.values().any(|s| s.pinned)) {
                    return Err(Code::SnapshotPinned);
                }
                self.cons.clear();
                self.stuck.clear();
            }
            Action::Rename { .. } | Action::Pin { .. } | Action::DeleteSnapshot { .. } => self.change_snapshot(action)?,
            Action::Advance { .. } | Action::FailNextStart | Action::RestartServer { .. } | Action::DieIn { .. } | Action::Reboot | Action::PoolFull { .. } => {
                self.act_on_machine(action)
            }
        }
        Ok(())
    }

    fn change_snapshot(&mut self, action: &Action) -> Said {
        match *action {
            Action::Rename { name, which, alias: a } => {
                let c = self.con(name)?;
                let s = c.find_unambiguous(&c.word(which))?;
                if c.showing(alias(a).unwrap_or(&s)).is_some_and(|o| o != s) {
                    return Err(Code::AliasInUse);
                }
                c.snaps.get_mut(&s).unwrap().alias = alias(a).map(str::to_owned);
            }
            Action::Pin { name, which, pin } => {
                let c = self.con(name)?;
                let s = c.find_unambiguous(&c.word(which))?;
                c.snaps.get_mut(&s).unwrap().pinned = pin;
            }
            Action::DeleteSnapshot { name, which } => {
                let c = self.con(name)?;
                let s = c.find_unambiguous(&c.word(which))?;
                if c.snaps[&s].pinned {
                    return Err(Code::SnapshotPinned);
                }
                c.drop_snapshot(&s);
            }
            _ => unreachable!("{action:?} changes no snapshot"),
        }
        Ok(())
    }

    fn change_image(&mut self, action: &Action) -> Said {
        match *action {
            Action::ImageOf { image, name, which } => {
                if self.images.contains_key(IMAGES[image]) {
                    return Err(Code::ImageExists);
                }
                if self.full {
                    return Err(Code::PoolFull);
                }
                let c = self.con(name)?;
                let s = c.find(&c.word(which)).ok_or(Code::SnapshotNotFound)?;
                let files = c.snaps[&s].files.clone();
                self.images.insert(IMAGES[image].to_owned(), files);
            }
            Action::DeleteImage { image } => {
                self.images.remove(IMAGES[image]).ok_or(Code::ImageNotFound)?;
            }
            _ => unreachable!("{action:?} changes no image"),
        }
        Ok(())
    }

    /// What happens to the machine and not through the host.
    fn act_on_machine(&mut self, action: &Action) {
        match *action {
            Action::Advance { hours } => self.now = self.now.checked_add(Duration::from_secs(u64::from(hours) * 3600)).unwrap(),
            Action::FailNextStart => self.fail = true,
            Action::RestartServer { gone } => {
                if let Some(c) = gone.and_then(|n| self.cons.get_mut(NAMES[n])).filter(|c| c.up()) {
                    c.status = Status::Stopped;
                }
            }
            Action::DieIn { .. } => {}
            Action::Reboot => {
                self.fail = false;
                self.stuck.clear();
                for c in self.cons.values_mut().filter(|c| c.up()) {
                    c.status = if c.autostart { Status::Running } else { Status::Stopped };
                }
            }
            Action::PoolFull { full } => self.full = full,
            _ => unreachable!("{action:?} goes through the host"),
        }
    }

    fn snapshot(&mut self, name: usize, alias: Option<&str>, days: Option<u8>, replace: bool) -> Said {
        let (now, full) = (self.now, self.full);
        let c = self.con(name)?;
        if full {
            return Err(Code::PoolFull);
        }
        let old = alias.and_then(|a| c.showing(a));
        match &old {
            Some(_) if !replace => return Err(Code::AliasInUse),
            Some(o) if c.snaps[o].pinned => return Err(Code::SnapshotPinned),
            _ => {}
        }
        let new = c.free(canonical(alias, now));
        let mut parent = c.head.clone();
        if let Some(old) = &old {
            if parent.as_ref() == Some(old) {
                parent.clone_from(&c.snaps[old].parent);
            }
            c.drop_snapshot(old);
        }
        let expires = days.map(|d| now.checked_add(Duration::from_secs(u64::from(d) * 86400)).unwrap());
        let snap = Snap { alias: alias.map(str::to_owned), created: now, last_used: None, expires, parent, pinned: false, files: c.files.clone() };
        c.snaps.insert(new.clone(), snap);
        c.head = Some(new);
        c.since = now;
        Ok(())
    }

    fn restore(&mut self, name: usize, target: String, keep: Option<&str>, start: Option<bool>) -> Said {
        let (now, full) = (self.now, self.full);
        let c = self.con(name)?;
        if full {
            return Err(Code::PoolFull);
        }
        if keep.is_some_and(|a| c.showing(a).is_some()) {
            return Err(Code::AliasInUse);
        }
        let wanted = match keep {
            Some(_) => canonical(keep, now),
            None => now.strftime("undo-%Y%m%d-%H%M%S").to_string().parse().unwrap(),
        };
        let kept = c.free(wanted);
        let expires = if keep.is_some() { None } else { Some(now.checked_add(Duration::from_secs(24 * 3600)).unwrap()) };
        let files = std::mem::replace(&mut c.files, c.snaps[&target].files.clone());
        let snap = Snap { alias: keep.map(str::to_owned), created: now, last_used: None, expires, parent: c.head.clone(), pinned: false, files };
        c.snaps.insert(kept.clone(), snap);
        c.snaps.get_mut(&target).unwrap().last_used = Some(now);
        c.head = Some(target.clone());
        c.last_used = Some(target);
        c.undo = Some(kept);
        c.since = now;
        if !start.unwrap_or(c.up()) {
            c.status = Status::Stopped;
            return Ok(());
        }
        let starts = self.start();
        self.con(name)?.status = if starts { Status::Running } else { Status::Failed };
        if starts { Ok(()) } else { Err(Code::StartFailed) }
    }

    fn lifecycle(&mut self, name: usize, verb: Verb) -> Said {
        use Status::{Failed, Paused, Running, Stopped};
        let stuck = self.stuck.contains(NAMES[name]);
        let status = self.con(name)?.status;
        let to = match (verb, status) {
            (Verb::Start, Stopped | Failed) | (Verb::Restart, _) => {
                let starts = self.start();
                self.con(name)?.status = if starts { Running } else { Failed };
                return if starts { Ok(()) } else { Err(Code::StartFailed) };
            }
            (Verb::Stop | Verb::ForceStop, Running | Paused) => Stopped,
            (Verb::Pause, Running) if stuck => return Err(Code::FreezeTimeout),
            (Verb::Pause, Running) => Paused,
            (Verb::Resume, Paused) => Running,
            _ => return Err(Code::OperationStateConflict),
        };
        self.con(name)?.status = to;
        Ok(())
    }

    fn expire(&mut self) {
        let now = self.now;
        for c in self.cons.values_mut() {
            let due: Vec<String> = c.snaps.iter().filter(|(_, s)| !s.pinned && s.expires.is_some_and(|e| e <= now)).map(|(n, _)| n.clone()).collect();
            due.iter().for_each(|n| c.drop_snapshot(n));
        }
    }

    /// What may be true after a death in the middle of an action: nothing of it, all of it, or what recovery makes of it.
    pub fn after_death(&self, action: &Action) -> Vec<Model> {
        let mut before = self.clone();
        before.expire();
        let mut after = self.clone();
        let said = after.apply(action);
        let mut all = vec![before.clone(), after.clone()];
        let mut add = |m: &Model, name: usize, status: Status, fail: bool| {
            let mut m = m.clone();
            if let Ok(c) = m.con(name) {
                c.status = status;
                m.fail = fail;
                all.push(m);
            }
        };
        if let Action::Restore { name, .. } | Action::Undo { name } = *action {
            // Undone: what ran was killed, and boots again from what it was.
            if before.cons.get(NAMES[name]).is_some_and(Con::up) {
                add(&before, name, if before.fail { Status::Failed } else { Status::Running }, false);
            }
            // Its boot failed, but nobody had been told: recovery boots it again.
            if said == Err(Code::StartFailed) {
                add(&after, name, Status::Running, false);
            }
        }
        all
    }
}
