//! What the kernel counts for each user, it counts for each container, although all containers have the same ids on the host.

use super::testing::Fixture;
use super::*;
use crate::runtime::suite::eventually;
use std::time::Duration;

const PROGRAM: &str = include_str!("user_limits.c");

fn build(f: &Fixture) {
    let source = f.dir.path().join("user_limits.c");
    std::fs::write(&source, PROGRAM).unwrap();
    let mut cc = std::process::Command::new("cc");
    let built = cc.args(["-static", "-O1", "-o"]).arg(f.root().join("bin/user_limits")).arg(&source).args(["-lrt"]).status().unwrap();
    assert!(built.success(), "this test needs a C compiler");
}

#[test]
fn one_container_that_takes_all_it_may_have_takes_nothing_from_others_or_from_the_host() {
    let f = Fixture::new();
    build(&f);
    let (greedy, other) = (ContainerId::generate(), ContainerId::generate());
    f.rt().start(&f.sh(&other, "sleep 1000")).unwrap();
    for what in ["inotify", "mqueue", "timers"] {
        f.rt().start(&f.spec(&greedy, &["user_limits", what])).unwrap();
        let said = || String::from_utf8(f.rt().console(&greedy, None).unwrap()).unwrap();
        eventually("the limit", || said().lines().any(|l| l.starts_with(what)));
        println!("{}", said());
        let command = ["user_limits", what, "8"].map(str::to_owned).to_vec();
        let exec = ExecSpec { command, output_limit: 1000, timeout: Some(Duration::from_secs(20)), ..ExecSpec::default() };
        let out = f.rt().exec(&other, &exec).unwrap();
        assert_eq!(String::from_utf8_lossy(&out.stdout), format!("{what} 8 enough\n"), "the other container");
        let host = std::process::Command::new(f.root().join("bin/user_limits")).args([what, "1"]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&host.stdout), format!("{what} 1 enough\n"), "the host");
        f.rt().kill(&greedy).unwrap();
    }
}

#[test]
fn a_container_has_its_limits() {
    let f = Fixture::new();
    let c = ContainerId::generate();
    let spec = f.sh(&c, "ulimit -Sn; ulimit -Hn; cat /proc/sys/user/max_user_namespaces; echo end; sleep 1000");
    f.rt().start(&spec).unwrap();
    eventually("the end", || f.rt().console(&c, None).unwrap().ends_with(b"end\n"));
    let (_, own) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    let (soft, hard) = (own.min(65_536), own.min(1_048_576));
    assert_eq!(String::from_utf8(f.rt().console(&c, None).unwrap()).unwrap(), format!("{soft}\n{hard}\n0\nend\n"));
}
