//! A container finds `localhost` and itself, whatever its image brings.

use super::{container, eventually, real};
use hoody_state::Caller;
use hoody_state::id::ContainerId;
use hoody_state::model::{CopyRequest, Status, Verb};
use hoody_state_workspace::{RealHost, project};

fn restart(real: &RealHost, c: &ContainerId) {
    real.host().lifecycle(&Caller::default(), c, Verb::Restart, None).unwrap();
}

#[test]
fn a_container_finds_localhost_and_itself() {
    let real = real("etc");
    let p = project(real.host(), "p");
    let a = container(&real, &p, "first", |_| {});
    // An image that has neither.
    real.sh(&a, "rm -f /etc/hosts /etc/hostname");
    restart(&real, &a);
    assert!(real.sh(&a, "ping -c 1 -W 2 localhost").contains("127.0.0.1"));
    assert!(real.sh(&a, "ping -c 1 -W 2 $(hostname)").contains("127.0.1.1"));
    assert_eq!(real.sh(&a, "cat /etc/hostname; hostname"), "first\nfirst\n");
    // What somebody adds stays, and goes along; the name does not.
    real.sh(&a, "echo '10.9.8.7 db' >> /etc/hosts");
    restart(&real, &a);
    assert!(real.sh(&a, "cat /etc/hosts").ends_with("10.9.8.7 db\n"));
    let request = CopyRequest { name: Some("second".into()), target_project_id: Some(p.to_string()), ..Default::default() };
    let b = real.host().copy_container(&Caller::default(), &a, request).unwrap().id;
    eventually("the copy's start", || real.host().container(&b).unwrap().status == Status::Running);
    assert_eq!(real.sh(&b, "cat /etc/hostname; hostname"), "second\nsecond\n");
    let hosts = real.sh(&b, "cat /etc/hosts");
    assert!(hosts.contains("\tsecond\t") && !hosts.contains("first") && hosts.ends_with("10.9.8.7 db\n"), "{hosts}");
    assert!(real.sh(&a, "cat /etc/hosts").contains("\tfirst\t"), "the source is as it was");
}

#[test]
fn unusual_files_in_etc_are_left_alone_and_do_not_delay_a_start() {
    let real = real("etc2");
    let p = project(real.host(), "p");
    let a = container(&real, &p, "box", |_| {});
    let host_file = real.dir.join("outside");
    std::fs::write(&host_file, "").unwrap();
    let own = "127.0.0.1 localhost mine";
    real.sh(&a, &format!("echo '{own}' > /etc/hosts"));
    restart(&real, &a);
    assert_eq!(real.sh(&a, "cat /etc/hosts").trim(), own);
    let outside = host_file.display();
    for put in [
        format!("ln -s {outside} /etc/hosts; ln -s ../../../../../../../../{outside} /etc/hostname"),
        "busybox mkfifo /etc/hosts /etc/hostname".to_owned(),
        "mkdir /etc/hosts /etc/hostname".to_owned(),
        "busybox truncate -s 1G /etc/hosts; head -c 100 /dev/urandom > /etc/hostname".to_owned(),
        format!("mv /etc /etc2; ln -s {} /etc", real.dir.display()),
    ] {
        real.sh(&a, &format!("rm -rf /etc/hosts /etc/hostname; {put}"));
        let before = real.sh(&a, "ls -ld /etc /etc/hosts /etc/hostname 2>&1 | head -c 1000");
        restart(&real, &a);
        assert_eq!(real.sh(&a, "ls -ld /etc /etc/hosts /etc/hostname 2>&1 | head -c 1000"), before, "{put}");
    }
    assert_eq!(std::fs::read_to_string(&host_file).unwrap(), "", "no link leads to a file of the host");
    assert!(!real.dir.join("hosts").exists() && !real.dir.join("hostname").exists());
}
