//! Real containers on this machine's runtime and kernel.

use super::testing::{Fixture, zombies};
use super::*;
use crate::error::Kind;
use crate::id::RunId;
use crate::machine::freezer;
use crate::runtime::suite::{self, Exits, eventually};
use crate::runtime::{Cancel, Network};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(20);
/// Waits for a word on a fifo, so that the suite can make it end and speak.
const OBEDIENT: &str = "trap 'exit 143' TERM; rm -f /tmp/fifo; busybox mkfifo /tmp/fifo; while :; do read -r x < /tmp/fifo && eval \"$x\"; done";

struct World(Fixture);

impl World {
    fn tell(&self, c: &ContainerId, word: &str) {
        // In the container, since each has the same root here.
        let script = format!("while ! [ -p /tmp/fifo ]; do sleep 0.01; done; echo '{word}' > /tmp/fifo");
        let out = self.0.rt().exec(c, &sh(&script)).unwrap();
        // An init that ends on the word takes the messenger along.
        assert!(out.exit_code == 0 || word.starts_with("exit") && out.exit_code == 137, "{out:?}");
    }
}

impl suite::World for World {
    fn runtime(&self) -> &dyn Runtime {
        self.0.rt()
    }
    fn spec(&self, c: &ContainerId) -> RunSpec {
        self.0.sh(c, OBEDIENT)
    }
    fn failing(&self, c: &ContainerId) -> RunSpec {
        self.0.spec(c, &["no-such-program"])
    }
    fn end(&self, c: &ContainerId, code: i32) {
        self.tell(c, &format!("exit {code}"));
    }
    fn say(&self, c: &ContainerId, text: &str) {
        self.tell(c, &format!("echo {}", text.trim_end()));
    }
    fn exits(&self) -> &Exits {
        &self.0.exits
    }
    fn restart(&mut self) {
        self.0.restart();
    }
}

fn sh(script: &str) -> ExecSpec {
    ExecSpec { command: vec!["/bin/sh".into(), "-c".into(), script.into()], output_limit: 1 << 20, timeout: Some(LONG), ..ExecSpec::default() }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn contract() {
    suite::run(&mut World(Fixture::new()));
}

/// In a mount namespace where v2 alone is mounted, as on a machine of today: everything here and of the freezers again.
#[test]
fn the_same_on_cgroup_v2_alone() {
    if crate::cgroup::Layout::detect().unwrap().kind() == crate::cgroup::LayoutKind::Unified || std::env::var_os("HOODY_TEST_UNIFIED").is_some() {
        return;
    }
    let script = "umount /sys/fs/cgroup/* 2>/dev/null; umount /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec \"$0\" \"$@\"";
    let me = std::env::current_exe().unwrap();
    let out = std::process::Command::new("unshare")
        .args(["-m", "sh", "-c", script])
        .arg(me)
        .args(["runtime::oci::tests", "freeze::tests", "cgroup::tests", "--test-threads", "2"])
        .env("HOODY_TEST_UNIFIED", "1")
        .output()
        .unwrap();
    assert!(out.status.success(), "{}\n{}", text(&out.stdout), text(&out.stderr));
}

#[test]
fn what_a_container_sees() {
    let f = Fixture::new();
    let c = ContainerId::generate();
    for network in [Network::None, Network::Host] {
        let mut spec = f.sh(
            &c,
            "id -u; hostname; echo $HOSTNAME $HOME $A; cat /proc/self/cgroup | head -n 1; touch /tmp/x; [ -e /sys/class/net ]; echo $?; ls /sys/class/net",
        );
        spec.network = network;
        spec.env = BTreeMap::from([("A".into(), "b c".into())]);
        f.rt().start(&spec).unwrap();
        assert_eq!(f.exits.wait(&spec.run).code, Some(0));
        let said = text(&f.rt().console(&c, None).unwrap());
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(&lines[..3], ["0", "box", "box /root b c"], "{said}");
        assert!(lines[3].ends_with(":/"), "a cgroup namespace of its own: {said}");
        assert_eq!(lines[4], "0", "{said}");
        assert_eq!(lines.len() > 6, network == Network::Host, "{said}");
        use std::os::unix::fs::MetadataExt;
        assert_eq!(std::fs::metadata(f.root().join("tmp/x")).unwrap().uid(), super::testing::ID_BASE);
        f.rt().remove(&c).unwrap();
    }
}

#[test]
fn the_host_network_brings_its_resolver() {
    let f = Fixture::new();
    if !Path::new("/etc/resolv.conf").is_file() {
        return;
    }
    let c = ContainerId::generate();
    let mut spec = f.sh(&c, "cat /etc/resolv.conf; echo x >> /etc/resolv.conf");
    spec.network = Network::Host;
    f.rt().start(&spec).unwrap();
    assert_ne!(f.exits.wait(&spec.run).code, Some(0), "it is read-only");
    let said = text(&f.rt().console(&c, None).unwrap());
    assert!(said.starts_with(&std::fs::read_to_string("/etc/resolv.conf").unwrap()), "{said}");
}

#[test]
fn limits_hold_and_what_is_charged_outlives_a_run() {
    let f = Fixture::new();
    let c = ContainerId::generate();
    let mut spec = f.sh(&c, "head -c 100000000 /dev/zero | tail -c 90000000 > /dev/null; sleep 1000");
    spec.command[2] = "x=$(head -c 100000000 /dev/zero | busybox tr '\\0' a); echo survived".into();
    spec.limits = Limits { memory: Some(Bytes::mib(16)), cpus: Some(0.5) };
    if let Err(e) = f.rt().start(&spec) {
        // A machine that cannot limit must say so.
        assert_eq!(e.code(), Code::NoController, "{e}");
        return;
    }
    let exit = f.exits.wait(&spec.run);
    assert!(!text(&f.rt().console(&c, None).unwrap()).contains("survived"), "{exit:?}");
    assert!(f.rt().stats(&c).unwrap().cpu_ns.unwrap() > 0);
    f.rt().start(&f.sh(&c, "sleep 1000")).unwrap();
    assert!(f.rt().stats(&c).unwrap().memory.unwrap() > Bytes(0));
}

#[test]
fn a_start_that_fails_says_why() {
    let f = Fixture::new();
    let c = ContainerId::generate();
    let e = f.rt().start(&f.spec(&c, &["no-such-program"])).unwrap_err();
    assert_eq!(e.code(), Code::StartFailed);
    assert!(e.message().contains("no-such-program") && e.message().contains("not found"), "{e}");
    let mut spec = f.spec(&c, &["sh"]);
    spec.root = Some(f.dir.path().join("nowhere"));
    assert_eq!(f.rt().start(&spec).unwrap_err().code(), Code::StartFailed);
    assert_eq!(std::fs::read_dir(f.dir.path().join("run/state")).unwrap().count(), 0);
    assert_eq!(f.rt().start(&f.spec(&c, &[])).unwrap_err().code(), Code::InvalidCommand);
    let mut config = Fixture::config(f.dir.path(), &f.parent);
    config.runtime = Some("/nonexistent/runc".into());
    let e = OciRuntime::new(config).unwrap().start(&f.sh(&c, "true")).unwrap_err();
    assert_eq!((e.kind(), e.code()), (Kind::Unavailable, Code::RuntimeNotFound));
    assert!(zombies().is_empty() || f.rt().list().unwrap().len() == 1);
}

#[test]
fn an_init_that_exits_at_once() {
    let f = Fixture::new();
    let c = ContainerId::generate();
    for code in [0, 3] {
        let spec = f.sh(&c, &format!("exit {code}"));
        f.rt().start(&spec).unwrap();
        assert_eq!(f.exits.wait(&spec.run).code, Some(code));
        assert_eq!(f.exits.of(&spec.run).len(), 1);
    }
    let spec = f.sh(&c, "kill -9 $$; sleep 1000");
    f.rt().start(&spec).unwrap();
    // Pid 1 cannot be killed from inside: the sleep goes on, and TERM does nothing either.
    let began = Instant::now();
    f.rt().stop(&c, Duration::from_millis(300)).unwrap();
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(f.exits.wait(&spec.run).code, Some(137));
}

#[test]
fn a_container_that_ignores_term_or_is_frozen_ends_all_the_same() {
    let f = Fixture::new();
    let c = ContainerId::generate();
    let freezer = freezer(f.rt().cgroups()).unwrap();
    f.rt().start(&f.sh(&c, "trap '' TERM INT HUP QUIT; sleep 1000 & while :; do sleep 1; done")).unwrap();
    f.rt().stop(&c, Duration::from_millis(200)).unwrap();
    assert_eq!(f.rt().stats(&c).unwrap().processes, 0);
    // A frozen one hears TERM.
    let spec = f.sh(&c, "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done");
    f.rt().start(&spec).unwrap();
    eventually("the trap", || f.rt().console(&c, None).unwrap().ends_with(b"ready\n"));
    freezer.freeze(&c, LONG).unwrap();
    f.rt().stop(&c, LONG).unwrap();
    assert_eq!(f.exits.wait(&spec.run).code, Some(5));
    // And kill reaches it.
    f.rt().start(&f.sh(&c, "sleep 1000")).unwrap();
    freezer.freeze(&c, LONG).unwrap();
    let e = f.rt().exec(&c, &sh("true")).unwrap_err();
    assert_eq!((e.kind(), e.code()), (Kind::Conflict, Code::ContainerPaused));
    f.rt().kill(&c).unwrap();
    assert!(!f.rt().cgroups().populated(&c).unwrap());
    // An empty frozen group does not hang the next start.
    freezer.freeze(&c, LONG).unwrap();
    f.rt().start(&f.sh(&c, "sleep 1000")).unwrap();
}

#[test]
fn a_fork_bomb_dies() {
    let f = Fixture::new();
    let c = ContainerId::generate();
    f.rt().start(&f.sh(&c, "f() { f & f & wait; }; sleep 0.05; f")).unwrap();
    eventually("the bomb", || f.rt().stats(&c).unwrap().processes > 200);
    let began = Instant::now();
    f.rt().kill(&c).unwrap();
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert_eq!(f.rt().stats(&c).unwrap().processes, 0);
}

#[test]
fn commands_in_a_container() {
    let f = Fixture::new();
    let c = ContainerId::generate();
    f.rt().start(&f.sh(&c, "sleep 1000")).unwrap();
    let exec = |s: &ExecSpec| f.rt().exec(&c, s).unwrap();
    let out = exec(&sh("echo out; echo err >&2; exit 3"));
    assert_eq!((out.exit_code, text(&out.stdout), text(&out.stderr)), (3, "out\n".into(), "err\n".into()));
    assert_eq!(exec(&sh("kill -9 $$")).exit_code, 137);
    // Both ways at once, more than pipes hold.
    let big = vec![b'x'; 3 << 20];
    let out = exec(&ExecSpec { stdin: big.clone(), output_limit: 8 << 20, ..sh("cat; head -c 2000000 /dev/zero >&2") });
    assert!(out.stdout == big && out.stderr.len() == 2_000_000 && !out.truncated);
    let out = exec(&ExecSpec { stdin: big, output_limit: 10, ..sh("cat") });
    assert!(out.truncated && out.stdout.len() == 10 && out.exit_code == 0);
    // One that does not read what it is fed.
    assert_eq!(exec(&ExecSpec { stdin: vec![0; 1 << 20], ..sh("exit 4") }).exit_code, 4);
    let out = exec(&ExecSpec { command: vec!["nope".into()], output_limit: 1000, ..ExecSpec::default() });
    assert_eq!((out.exit_code, text(&out.stderr)), (127, "nope: not found: no program of this name is in PATH\n".into()));
    let out = exec(&ExecSpec { command: vec!["/bin/nope".into()], output_limit: 1000, ..ExecSpec::default() });
    assert!(out.exit_code == 127 && text(&out.stderr).starts_with("/bin/nope: not found: there is no such file"), "{out:?}");
    assert_eq!(exec(&ExecSpec { command: vec!["/etc".into()], output_limit: 1000, ..ExecSpec::default() }).exit_code, 126);
    let out = exec(&ExecSpec { cwd: Some("/tmp".into()), env: BTreeMap::from([("K".into(), "v".into())]), ..sh("pwd; echo $K; echo $PATH") });
    assert!(text(&out.stdout).starts_with("/tmp\nv\n/usr/local/sbin:"), "{out:?}");
    assert_eq!(f.rt().exec(&c, &ExecSpec { cwd: Some("x".into()), ..sh("true") }).unwrap_err().code(), Code::InvalidCwd);
    exec(&sh("echo x > /tmp/file; ln -s /tmp/loop /tmp/loop"));
    for cwd in ["/nope", "/tmp/file", "/tmp/file/x", "/tmp/loop", "/../nope"] {
        for command in ["pwd", "/bin/sh", "nope"] {
            let e = f.rt().exec(&c, &ExecSpec { command: vec![command.into()], cwd: Some(cwd.into()), ..sh("true") }).unwrap_err();
            assert_eq!(e.code(), Code::WorkingDirectoryNotFound, "{cwd} {command}: {}", e.message());
            assert!(e.message().contains(cwd), "{}", e.message());
        }
    }
    assert_eq!(exec(&ExecSpec { cwd: Some("/tmp".into()), command: vec!["nope".into()], ..sh("") }).exit_code, 127);
    // A daemon that keeps the pipes is not waited for.
    let began = Instant::now();
    assert_eq!(exec(&sh("sleep 1000 & echo started")).exit_code, 0);
    assert!(began.elapsed() < LONG / 2);
    // A time-out takes the children along.
    let before = f.rt().stats(&c).unwrap().processes;
    let out = exec(&ExecSpec { timeout: Some(Duration::from_millis(300)), ..sh("sleep 999 & echo hi; sleep 998") });
    assert!(out.timed_out && out.exit_code == 137 && out.stdout == b"hi\n", "{out:?}");
    if f.rt().cgroups().layout().kind() == crate::cgroup::LayoutKind::Hybrid {
        eventually("the children to die", || f.rt().stats(&c).unwrap().processes == before);
    }
    // So does the departure of the caller, at any moment of the command's life.
    for after in [0, 5, 20, 60, 300] {
        let cancel = Cancel::new().unwrap();
        let long = ExecSpec { cancel: Some(cancel.clone()), ..sh("sleep 997 & setsid sleep 996 & sleep 995") };
        std::thread::scope(|s| {
            let running = s.spawn(|| f.rt().exec(&c, &long));
            std::thread::sleep(Duration::from_millis(after));
            cancel.cancel();
            let began = Instant::now();
            assert_eq!(running.join().unwrap().unwrap_err().code(), Code::ExecCancelled);
            assert!(began.elapsed() < LONG / 2);
        });
        if f.rt().cgroups().layout().kind() == crate::cgroup::LayoutKind::Hybrid {
            eventually("what it started to die", || f.rt().stats(&c).unwrap().processes == before);
        }
    }
    f.rt().kill(&c).unwrap();
    // Children of what has ended are reaped in their own time.
    eventually("the dead to be reaped", || !zombies().iter().any(|z| z.contains(&f.parent)));
}

#[test]
fn twenty_at_once() {
    let f = Fixture::new();
    let all: Vec<ContainerId> = (0..20).map(|_| ContainerId::generate()).collect();
    std::thread::scope(|s| {
        for c in &all {
            s.spawn(|| f.rt().start(&f.sh(c, "sleep 1000")).unwrap());
        }
    });
    assert!(all.iter().all(|c| f.rt().adopt(c).unwrap().is_some()));
    std::thread::scope(|s| {
        for c in &all {
            s.spawn(|| f.rt().remove(c).unwrap());
        }
    });
    assert_eq!(f.rt().list().unwrap(), []);
}

#[test]
fn nothing_is_left_after_fifty_lives() {
    let f = Fixture::new();
    let c = ContainerId::generate();
    for i in 0..50 {
        let spec = f.sh(&c, "sleep 1000");
        f.rt().start(&spec).unwrap();
        if i % 10 == 0 {
            f.rt().exec(&c, &ExecSpec { timeout: Some(Duration::from_millis(50)), ..sh("sleep 100") }).unwrap();
        }
        f.rt().kill(&c).unwrap();
        assert_eq!(f.exits.wait(&spec.run).code, Some(137));
    }
    let left = zombies().into_iter().filter(|z| z.contains(&f.parent)).collect::<Vec<_>>();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(std::fs::read_dir(f.dir.path().join("run/state")).unwrap().count(), 0);
    f.rt().remove(&c).unwrap();
    for root in f.rt().cgroups().layout().roots() {
        assert!(!root.join(&f.parent[1..]).exists(), "{}", root.display());
    }
}

#[test]
fn consoles_stay_bounded_while_a_container_floods() {
    let f = Fixture::new();
    let c = ContainerId::generate();
    f.rt().start(&f.sh(&c, "echo begin > /dev/stderr; yes 0123456789 | head -c 20000000; echo end; sleep 1000")).unwrap();
    eventually("the end", || f.rt().console(&c, None).unwrap().ends_with(b"end\n"));
    let file = f.dir.path().join(format!("console/{c}.log"));
    use std::os::unix::fs::MetadataExt;
    eventually("the trimming", || std::fs::metadata(&file).unwrap().blocks() * 512 <= (1 << 20) + (128 << 10));
    let kept = f.rt().console(&c, None).unwrap();
    assert!(kept.len() >= 512 << 10 && kept.len() <= 1 << 20, "{}", kept.len());
}

#[test]
fn without_the_subreaper_exits_are_told_all_the_same() {
    let f = Fixture::new();
    let mut config = Fixture::config(f.dir.path(), &f.parent);
    config.subreaper = false;
    let r = OciRuntime::new(config).unwrap();
    let exits = Exits::default();
    r.set_exit_listener(exits.listener());
    let c = ContainerId::generate();
    let spec = f.sh(&c, "sleep 0.1; exit 6");
    r.start(&spec).unwrap();
    assert!(matches!(exits.wait(&spec.run).code, Some(6) | None));
}

/// The steps of a start, in their order: a crash is tried at each.
const STEPS: [&str; 7] = ["prepared", "bundle", "intent", "spawned", "runtime done", "recorded", "watched"];

#[test]
fn a_server_killed_at_any_step_of_a_start_leaves_what_can_be_told_and_cleaned() {
    if let Ok(args) = std::env::var("HOODY_TEST_CRASH") {
        return crash_child(&args);
    }
    let f = Fixture::new();
    for step in STEPS {
        let (c, run) = (ContainerId::generate(), RunId::generate());
        let me = std::env::current_exe().unwrap();
        let name = "runtime::oci::tests::a_server_killed_at_any_step_of_a_start_leaves_what_can_be_told_and_cleaned";
        let status = std::process::Command::new(me)
            .args([name, "--exact", "--nocapture"])
            .env("HOODY_TEST_CRASH", format!("{}|{}|{c}|{run}|{step}", f.dir.path().display(), f.parent))
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(status.signal(), Some(9), "it was killed at {step}");
        let adopted = f.rt().adopt(&c).unwrap();
        match step {
            "prepared" | "bundle" | "intent" => assert_eq!(adopted, None, "{step}"),
            // The runtime finishes by itself.
            _ => assert_eq!(adopted.map(|a| a.run), Some(run.clone()), "{step}"),
        }
        f.rt().kill(&c).unwrap();
        assert!(!f.rt().cgroups().populated(&c).unwrap(), "{step}");
        assert_eq!(f.rt().adopt(&c).unwrap(), None);
        // It can be started again, and at once killed again by a server that knows nothing.
        f.rt().start(&f.sh(&c, "sleep 1000")).unwrap();
        f.rt().remove(&c).unwrap();
        assert_eq!(f.rt().list().unwrap(), [], "{step}");
        assert_eq!(std::fs::read_dir(f.dir.path().join("run/state")).unwrap().count(), 0, "{step}");
    }
    // Killed while the runtime is at work, and killing at once: nothing comes up later.
    for _ in 0..5 {
        let (c, run) = (ContainerId::generate(), RunId::generate());
        let me = std::env::current_exe().unwrap();
        let name = "runtime::oci::tests::a_server_killed_at_any_step_of_a_start_leaves_what_can_be_told_and_cleaned";
        let env = format!("{}|{}|{c}|{run}|spawned", f.dir.path().display(), f.parent);
        let _ = std::process::Command::new(me).args([name, "--exact"]).env("HOODY_TEST_CRASH", env).stdout(std::process::Stdio::null()).status().unwrap();
        f.rt().kill(&c).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        assert!(!f.rt().cgroups().populated(&c).unwrap());
        f.rt().remove(&c).unwrap();
    }
}

fn crash_child(args: &str) {
    let args: Vec<&str> = args.split('|').collect();
    let mut config = Fixture::config(Path::new(args[0]), args[1]);
    config.subreaper = false;
    let r = OciRuntime::new(config).unwrap();
    let at = args[4].to_owned();
    let _ = r.step.set(Box::new(move |step| {
        if step == at {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
        }
    }));
    let mut spec = suite::spec(&args[2].parse().unwrap(), Some(&Path::new(args[0]).join("root")), &["/bin/sh", "-c", "sleep 1000"]);
    spec.run = args[3].parse().unwrap();
    r.start(&spec).unwrap();
}

#[test]
fn a_pid_that_means_another_process_now_is_not_adopted() {
    let f = Fixture::new();
    let c = ContainerId::generate();
    let spec = f.sh(&c, "sleep 1000");
    f.rt().start(&spec).unwrap();
    let mut record = f.rt().dirs.load(&c, &f.rt().boot_id).unwrap().unwrap();
    record.init = Some(super::record::Init { start_time: record.init.unwrap().start_time + 1, ..record.init.unwrap() });
    f.rt().dirs.save(&c, &record).unwrap();
    assert_eq!(f.rt().adopt(&c).unwrap(), None);
    // One of ours outside the group.
    let me = std::process::id() as i32;
    record.init = Some(super::record::Init { pid: me, start_time: crate::sys::process::proc_stat(me).unwrap().start_time });
    f.rt().dirs.save(&c, &record).unwrap();
    assert_eq!(f.rt().adopt(&c).unwrap(), None);
    f.rt().kill(&c).unwrap();
    assert_eq!(f.exits.wait(&spec.run).code, Some(137));
}
