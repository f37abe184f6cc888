//! A crash before every step of a change of a file: afterwards it is what it was, or what it was to become, and nothing else is left.

use crate::write::leftovers;
use hoody_state::id::ContainerId;
use hoody_state::model::{FileCondition, WriteOptions};
use hoody_state::op::step::StepHook;
use hoody_state::tree::TreePath;
use hoody_state::{Caller, Code, Host, Result};
use hoody_state_workspace::{CrashAt, RealHost, assert_clean, container, project};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

struct Hook(Arc<CrashAt>);

impl StepHook for Hook {
    fn step(&self, operation: &str, step: &str) -> Result<()> {
        if operation.starts_with("file.") { self.0.step(operation, step) } else { Ok(()) }
    }
}

type Change = fn(&Host, &ContainerId) -> Result<()>;

fn write(host: &Host, id: &ContainerId) -> Result<()> {
    let path = TreePath::new(b"/srv/f").unwrap();
    host.write_file(&Caller::default(), id, &path, &WriteOptions::default(), &mut &b"after"[..]).map(drop)
}

fn delete(host: &Host, id: &ContainerId) -> Result<()> {
    host.delete_file(&Caller::default(), id, &TreePath::new(b"/srv/f").unwrap(), true, &FileCondition::default()).map(drop)
}

struct Case {
    what: &'static str,
    before: &'static str,
    after: &'static str,
    change: Change,
    id: ContainerId,
    srv: PathBuf,
    crashes: u64,
}

impl Case {
    fn prepare(&self) {
        let _ = fs::remove_dir_all(&self.srv);
        fs::create_dir_all(&self.srv).unwrap();
        match self.before {
            "before" => fs::write(self.srv.join("f"), self.before).unwrap(),
            "nothing" => {}
            _ => (0..3).for_each(|i| fs::create_dir_all(self.srv.join(format!("f/{i}/sub"))).unwrap()),
        }
        assert_eq!(self.state(), self.before);
    }

    fn state(&self) -> String {
        let f = self.srv.join("f");
        match fs::read_to_string(&f) {
            Ok(text) => text,
            Err(_) if f.is_dir() => format!("directory of {}", fs::read_dir(&f).unwrap().count()),
            Err(_) => "nothing".into(),
        }
    }
}

#[test]
fn a_change_that_is_cut_short_is_done_or_undone() {
    let crash = Arc::new(CrashAt::default());
    let hook = Arc::clone(&crash);
    let mut real = RealHost::built("files-crash", |_| {}, move |builder| builder.hook(Box::new(Hook(Arc::clone(&hook)))));
    let p = project(real.host(), "p");
    let cases: [(&str, &str, &str, Change); 4] = [
        ("create", "nothing", "after", write),
        ("replace", "before", "after", write),
        ("unlink", "before", "nothing", delete),
        ("remove", "directory of 3", "nothing", delete),
    ];
    // Each in a container of its own, so that all of them crash before a server is started again.
    let mut open: Vec<Case> = cases
        .into_iter()
        .map(|(what, before, after, change)| {
            let id = container(real.host(), &p, what).unwrap();
            let srv = real.live(&id).join("srv");
            Case { what, before, after, change, id, srv, crashes: 0 }
        })
        .collect();
    for step in 1.. {
        let mut crashed = Vec::new();
        for mut case in open {
            case.prepare();
            crash.count.store(0, Ordering::SeqCst);
            crash.at.store(step, Ordering::SeqCst);
            let done = (case.change)(real.host(), &case.id);
            crash.at.store(0, Ordering::SeqCst);
            match done {
                Ok(()) => {
                    assert_eq!(case.state(), case.after, "{}", case.what);
                    assert!(case.crashes >= 3, "{}: {} steps", case.what, case.crashes);
                }
                Err(e) => {
                    assert_eq!(e.code(), Code::Crashed, "{e}");
                    case.crashes += 1;
                    crashed.push(case);
                }
            }
        }
        if crashed.is_empty() {
            break;
        }
        real.stop();
        real.start();
        for case in &crashed {
            let now = case.state();
            assert!(now == case.before || now == case.after, "{}, step {step}: {now}", case.what);
            assert_eq!(leftovers(&case.srv), Vec::<String>::new(), "{}, step {step}", case.what);
        }
        assert_clean(real.host(), &format!("step {step}"));
        open = crashed;
    }
}
