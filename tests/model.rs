//! A whole host over the memory backends against maps: any sequence of what people, clocks, crashes and reboots do. After each step everything that can
//! be seen is compared, and `check` finds nothing. `PROPTEST_CASES=5000` runs more of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "model/model.rs"]
mod model;
#[path = "model/world.rs"]
mod world;

use hoody_state::id::{ContainerId, ProjectId};
use hoody_state::model::{NewContainer, NewSnapshot, OnAliasConflict, PageRequest, RestoreOptions, Status, Verb};
use hoody_state::snapshot::Volume;
use hoody_state::{Caller, Code, Host, Kind, Result};
use hoody_state_workspace::{assert_clean, project, tiny_image};
use model::{ALIASES, Action, Con, IMAGES, Model, NAMES, PATHS, Snap};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use world::World;

struct Run {
    world: World,
    host: Option<Host>,
    project: ProjectId,
    ids: BTreeMap<String, ContainerId>,
    model: Model,
}

fn me() -> Caller {
    Caller::default()
}

fn unit<T>(r: Result<T>) -> Result<()> {
    r.map(|_| ())
}

impl Run {
    fn new() -> Self {
        let mut world = World::new();
        let host = world.open();
        host.import_image(&me(), "tiny", &mut &tiny_image()[..]).unwrap();
        let project = project(&host, "p");
        let now = hoody_state::clock::Clock::now(&*world.clock);
        Run { world, host: Some(host), project, ids: BTreeMap::new(), model: Model::new(now) }
    }

    fn host(&self) -> &Host {
        self.host.as_ref().unwrap()
    }

    fn id(&self, name: usize) -> ContainerId {
        self.ids.get(NAMES[name]).cloned().unwrap_or_else(|| "0123456789abcdef01234567".parse().unwrap())
    }

    fn word(&self, name: usize, which: usize) -> String {
        self.model.cons.get(NAMES[name]).map_or_else(|| "no such".to_owned(), |c| c.word(which))
    }

    fn restart(&mut self) {
        self.host = None;
        self.host = Some(self.world.open());
    }

    fn act(&mut self, action: &Action) -> Result<()> {
        let h = self.host().clone();
        let alias = |i: Option<usize>| i.map(|i| ALIASES[i].to_owned());
        match *action {
            Action::Create { name, image, autostart } => {
                let new = NewContainer {
                    name: Some(NAMES[name].into()),
                    container_image: Some(IMAGES[image].into()),
                    autostart: Some(autostart),
                    ..Default::default()
                };
                unit(h.create_container(&me(), &self.project, new))
            }
            Action::Delete { name } => h.delete_container(&me(), &self.id(name)),
            Action::Write { name, path, value } if self.ids.contains_key(NAMES[name]) => {
                self.world.store.write(&Volume::Live(self.id(name)), PATHS[path], &[value; 3])
            }
            Action::Remove { name, path } if self.ids.contains_key(NAMES[name]) => unit(self.world.store.remove(&Volume::Live(self.id(name)), PATHS[path])),
            Action::InitExits { name } if self.ids.contains_key(NAMES[name]) => {
                self.world.runtime.crash(&self.id(name), 3);
                Ok(())
            }
            Action::Stuck { name, stuck } if self.ids.contains_key(NAMES[name]) => {
                self.world.freezer.set_stuck(&self.id(name), stuck);
                Ok(())
            }
            Action::Write { name, .. } | Action::Remove { name, .. } | Action::InitExits { name } | Action::Stuck { name, .. } => {
                unit(h.container(&self.id(name)))
            }
            Action::Snapshot { name, alias: a, days, replace } => {
                let on_alias_conflict = if replace { OnAliasConflict::Replace } else { OnAliasConflict::Error };
                unit(h.create_snapshot(
                    &me(),
                    &self.id(name),
                    NewSnapshot { alias: alias(a), expiry: days.map(Into::into), on_alias_conflict, ..Default::default() },
                ))
            }
            Action::Restore { name, which, keep, start } => {
                let options = RestoreOptions { keep_current: alias(keep), start, ..Default::default() };
                unit(h.restore(&me(), &self.id(name), &self.word(name, which), options))
            }
            Action::Undo { name } => unit(h.undo(&me(), &self.id(name))),
            Action::Rename { name, which, alias: a } => unit(h.rename_snapshot(&me(), &self.id(name), &self.word(name, which), alias(a))),
            Action::Pin { name, which, pin } => unit(h.pin_snapshot(&me(), &self.id(name), &self.word(name, which), pin.then(|| "it is needed".to_owned()))),
            Action::DeleteSnapshot { name, which } => unit(h.delete_snapshot(&me(), &self.id(name), &self.word(name, which))),
            Action::Lifecycle { name, verb } => unit(h.lifecycle(&me(), &self.id(name), verb, None)),
            Action::ImageOf { image, name, which } => unit(h.image_from_snapshot(&me(), IMAGES[image], &self.id(name), &self.word(name, which))),
            Action::DeleteImage { image } => h.delete_image(&me(), IMAGES[image]),
            Action::DeleteProject => {
                h.delete_project(&me(), &self.project, true)?;
                self.project = project(&h, "p");
                Ok(())
            }
            Action::Advance { .. } | Action::FailNextStart | Action::RestartServer { .. } | Action::DieIn { .. } | Action::Reboot | Action::PoolFull { .. } => {
                drop(h);
                self.act_on_machine(action);
                Ok(())
            }
        }
    }

    /// What happens to the machine and not through the host.
    fn act_on_machine(&mut self, action: &Action) {
        match *action {
            Action::Advance { hours } => {
                self.world.clock.advance(Duration::from_secs(u64::from(hours) * 3600));
            }
            Action::FailNextStart => {
                self.world.runtime.fail_next_start();
            }
            Action::RestartServer { gone } => {
                self.host = None;
                if let Some(name) = gone {
                    self.world.runtime.crash(&self.id(name), 3);
                }
                self.restart();
            }
            Action::DieIn { steps } => {
                self.world.death.at(u64::from(steps));
            }
            Action::Reboot => {
                self.host = None;
                self.world.power_off();
                self.restart();
            }
            Action::PoolFull { full } => {
                let mib = if full { 32 } else { 1024 };
                self.world.store.set_capacity(hoody_state::units::Bytes::mib(mib));
            }
            _ => unreachable!("{action:?} goes through the host"),
        }
    }

    /// Waits for background operations, and deletes what has expired.
    fn settle(&self) {
        let end = Instant::now() + Duration::from_secs(10);
        let h = self.host();
        loop {
            let open: Vec<_> = h.operations(&PageRequest::first()).unwrap().rows.into_iter().filter(|o| o.finished_at.is_none()).collect();
            for o in &open {
                h.wait_operation(&o.id, Duration::from_millis(100)).unwrap();
            }
            // The upkeep's thread may be at the same work: then it is asked again.
            let waits = h.expire_due().unwrap().is_some_and(|d| d <= Duration::from_secs(5));
            if self.world.death.came() || (open.is_empty() && !waits) {
                return;
            }
            assert!(Instant::now() < end, "it does not come to rest: {open:#?}");
        }
    }

    fn step(&mut self, action: &Action) {
        let before = self.model.clone();
        let end = Instant::now() + Duration::from_secs(5);
        let out = loop {
            match self.act(action) {
                // Nobody else changes anything here but the upkeep, for a moment.
                Err(e) if e.kind() == Kind::Busy && !self.world.death.came() && Instant::now() < end => std::thread::yield_now(),
                out => break out,
            }
        };
        self.settle();
        if self.world.death.came() {
            let all = before.after_death(action);
            self.restart();
            self.settle();
            self.find_project();
            let seen = all.iter().enumerate().find_map(|(i, m)| {
                self.model = m.clone();
                (self.observe() == self.model).then_some(i)
            });
            assert!(seen.is_some(), "dead in {action:?} ({out:?}), and it is none of {all:#?}\nbut {:#?}", self.observe());
            assert!(out.is_err() || seen == Some(1) || all[1] == self.model, "{action:?} was acknowledged and is lost");
        } else {
            let said = self.model.apply(action);
            let code = out.as_ref().err().map(|e| e.code());
            assert_eq!(code, said.err(), "{action:?}: {out:?}");
            let seen = self.observe();
            assert_eq!(seen, self.model, "after {action:?}: left is what is seen, right what should be");
        }
        assert!(out.as_ref().err().is_none_or(|e| e.code() != Code::Crashed || e.kind() == Kind::Internal));
        assert_clean(self.host(), &format!("after {action:?}"));
    }

    fn find_project(&mut self) {
        self.project = match self.host().projects(&PageRequest::first(), None).unwrap().rows.first() {
            Some(p) => p.id.clone(),
            None => project(self.host(), "p"),
        };
    }

    /// Everything that can be seen, in the model's words.
    fn observe(&mut self) -> Model {
        let h = self.host().clone();
        let mut seen = Model { cons: BTreeMap::new(), images: BTreeMap::new(), ..self.model.clone() };
        self.ids.clear();
        for c in h.containers(&PageRequest::first(), None, None).unwrap().rows {
            let con = self.observe_container(&h, &c.id, self.model.cons.get(c.name.as_str()).and_then(|c| c.undo.clone()));
            self.ids.insert(c.name.to_string(), c.id);
            assert!(seen.cons.insert(c.name.to_string(), con).is_none(), "two of one name");
        }
        let images = h.images(&PageRequest::first()).unwrap().rows;
        assert_eq!(images.iter().filter(|i| i.is_default).count(), usize::from(!images.is_empty()), "one is the default: {images:?}");
        for i in images {
            seen.images.insert(i.name.to_string(), self.world.store.content(&Volume::Image(i.name)).unwrap());
        }
        seen
    }

    fn observe_container(&self, h: &Host, id: &ContainerId, undo: Option<String>) -> Con {
        let c = h.container_detail(id).unwrap();
        let list = h.snapshots(id).unwrap();
        let text = |o: Option<&hoody_state::name::SnapshotName>| o.map(ToString::to_string);
        assert!(list.snapshots.is_sorted_by(|a, b| a.created_at >= b.created_at), "newest first");
        assert_eq!((c.container.snapshot_count, list.snapshot_count), (list.snapshots.len() as u64, list.snapshots.len() as u64));
        let status = c.container.status;
        // One that ended by itself says why, and one that was stopped does not.
        let may_say = matches!(status, Status::Failed | Status::Stopped);
        assert!(
            may_say && (status == Status::Stopped || c.container.status_message.is_some()) || c.container.status_message.is_none(),
            "{status}: {:?}",
            c.container.status_message
        );
        assert_eq!(c.container.operation_id, None);
        assert_eq!(
            (self.world.runs(id), self.world.runs(id) && self.world.frozen(id)),
            (matches!(status, Status::Running | Status::Paused), status == Status::Paused),
            "{status}"
        );
        let log = h.status_logs(id, &PageRequest::first()).unwrap().rows;
        assert_eq!(log[0].to_status, status, "the log's last word");
        assert!(log.windows(2).all(|w| w[0].from_status == Some(w[1].to_status)), "the log has a gap: {log:#?}");
        let snaps = list.snapshots.into_iter().map(|s| {
            let files = self.world.store.content(&Volume::Snapshot(id.clone(), s.name.clone())).unwrap();
            let snap = Snap {
                alias: s.alias.map(|a| a.to_string()),
                created: s.created_at,
                last_used: s.last_used_at,
                expires: s.expires_at,
                parent: text(s.parent.as_ref()),
                pinned: s.pinned.is_some(),
                files,
            };
            (s.name.to_string(), snap)
        });
        Con {
            status,
            files: self.world.store.content(&Volume::Live(id.clone())).unwrap(),
            snaps: snaps.collect(),
            head: text(c.lineage.snapshot.as_ref()),
            since: c.lineage.since,
            last_used: text(c.container.last_used_snapshot.as_ref()),
            undo,
            autostart: c.container.autostart,
            image: c.container.container_image,
        }
    }
}

fn verb() -> impl Strategy<Value = Verb> {
    prop_oneof![Just(Verb::Start), Just(Verb::Stop), Just(Verb::ForceStop), Just(Verb::Restart), Just(Verb::Pause), Just(Verb::Resume)]
}

fn action() -> impl Strategy<Value = Action> {
    // The first name comes up most, so that histories grow long.
    let name = || prop_oneof![4 => Just(0usize), 1 => 1..NAMES.len()];
    let image = || prop_oneof![3 => Just(0usize), 1 => 1..IMAGES.len()];
    let alias = || proptest::option::weighted(0.7, 0..ALIASES.len());
    let which = || 0..24usize;
    prop_oneof![
        6 => (name(), image(), any::<bool>()).prop_map(|(name, image, autostart)| Action::Create { name, image, autostart }),
        1 => name().prop_map(|name| Action::Delete { name }),
        8 => (name(), 0..PATHS.len(), 0..4u8).prop_map(|(name, path, value)| Action::Write { name, path, value }),
        2 => (name(), 0..PATHS.len()).prop_map(|(name, path)| Action::Remove { name, path }),
        10 => (name(), alias(), proptest::option::weighted(0.3, 1..3u8), any::<bool>())
            .prop_map(|(name, alias, days, replace)| Action::Snapshot { name, alias, days, replace }),
        8 => (name(), which(), proptest::option::weighted(0.3, 0..ALIASES.len()), proptest::option::weighted(0.3, any::<bool>()))
            .prop_map(|(name, which, keep, start)| Action::Restore { name, which, keep, start }),
        3 => name().prop_map(|name| Action::Undo { name }),
        3 => (name(), which(), alias()).prop_map(|(name, which, alias)| Action::Rename { name, which, alias }),
        3 => (name(), which(), any::<bool>()).prop_map(|(name, which, pin)| Action::Pin { name, which, pin }),
        3 => (name(), which()).prop_map(|(name, which)| Action::DeleteSnapshot { name, which }),
        3 => (1..40u8).prop_map(|hours| Action::Advance { hours }),
        8 => (name(), verb()).prop_map(|(name, verb)| Action::Lifecycle { name, verb }),
        2 => name().prop_map(|name| Action::InitExits { name }),
        2 => Just(Action::FailNextStart),
        1 => (name(), any::<bool>()).prop_map(|(name, stuck)| Action::Stuck { name, stuck }),
        2 => (image(), name(), which()).prop_map(|(image, name, which)| Action::ImageOf { image, name, which }),
        1 => image().prop_map(|image| Action::DeleteImage { image }),
        1 => Just(Action::DeleteProject),
        2 => proptest::option::of(name()).prop_map(|gone| Action::RestartServer { gone }),
        5 => (1..12u8).prop_map(|steps| Action::DieIn { steps }),
        1 => Just(Action::Reboot),
        1 => any::<bool>().prop_map(|full| Action::PoolFull { full }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_iters: 4000, ..ProptestConfig::default() })]
    #[test]
    fn a_host_is_what_its_model_says(actions in proptest::collection::vec(action(), 1..50)) {
        let mut run = Run::new();
        for a in &actions {
            run.step(a);
        }
    }
}
