//! A copy is a machine of its own: its machine id, SSH host key and random seed are not those of its source.

use super::{container, eventually, real};
use hoody_state::Caller;
use hoody_state::id::ContainerId;
use hoody_state::model::{ContainerIdentity, CopyRequest, ForkRequest, RestoreOptions, Status, SyncRequest, Verb};
use hoody_state_workspace::{RealHost, assert_clean, project, snapshot};
use std::collections::BTreeSet;

const ID: &str = "0123456789abcdef0123456789abcdef\n";

/// A container with everything that identifies a machine.
fn source(real: &RealHost) -> (hoody_state::id::ProjectId, ContainerId) {
    let p = project(real.host(), "web");
    let c = container(real, &p, "source", |_| {});
    let make = "mkdir -p /etc/ssh /var/lib/systemd && echo old > /etc/ssh/ssh_host_rsa_key && chmod 600 /etc/ssh/ssh_host_rsa_key && echo old > /var/lib/systemd/random-seed";
    real.sh(&c, &format!("echo {} > /etc/machine-id && {make}", ID.trim()));
    (p, c)
}

fn machine_id(real: &RealHost, c: &ContainerId) -> String {
    real.sh(c, "cat /etc/machine-id")
}

fn identity(real: &RealHost, c: &ContainerId) -> Option<ContainerIdentity> {
    real.host().container(c).unwrap().identity
}

fn at_rest(real: &RealHost, c: &ContainerId) {
    eventually("the end of the copy", || real.host().container(c).is_ok_and(|c| c.operation_id.is_none()));
}

#[test]
fn each_fork_is_a_machine_of_its_own_and_the_answer_says_what_was_changed() {
    let mut real = real("identity");
    let (_, c) = source(&real);
    let me = Caller::default();
    let forked = real.host().fork_container(&me, &c, &ForkRequest { count: Some(3), ..Default::default() }).unwrap();
    let forks: Vec<_> = forked.results.into_iter().map(|r| r.container.unwrap()).collect();
    for f in &forks {
        let said = f.identity.clone().expect("the answer says it");
        assert!(!said.pending);
        let wanted = ["/etc/hostname", "/etc/machine-id", "/var/lib/systemd/random-seed"];
        assert_eq!((said.renewed, said.removed), (wanted.map(String::from).to_vec(), vec!["/etc/ssh/ssh_host_rsa_key".into()]));
        at_rest(&real, &f.id);
    }
    let ids: BTreeSet<String> = forks.iter().map(|f| machine_id(&real, &f.id)).chain([machine_id(&real, &c)]).collect();
    assert_eq!(ids.len(), 4, "{ids:?}");
    assert_eq!(machine_id(&real, &c), ID, "the source keeps its own");
    let owner = real.sh(&forks[0].id, "stat -c '%u:%g %a' /etc/ssh/ssh_host_ed25519_key");
    assert_eq!(owner, "0:0 600\n");

    // A restart changes nothing, of the container or of the server.
    let own = machine_id(&real, &forks[0].id);
    real.host().lifecycle(&me, &forks[0].id, Verb::Restart, None).unwrap();
    real.stop();
    real.start();
    assert_eq!(machine_id(&real, &forks[0].id), own);

    // A snapshot that the fork has from its source brings the source's identity back, and the boot renews it.
    let inherited = real.host().snapshots(&forks[0].id).unwrap().snapshots[0].name.clone();
    real.host().restore(&me, &forks[0].id, inherited.as_str(), RestoreOptions::default()).unwrap();
    let after = machine_id(&real, &forks[0].id);
    assert!(after != ID && after.len() == ID.len(), "{after}");
    assert_clean(real.host(), "after forks");
}

#[test]
fn a_copy_that_stands_by_keeps_the_identity_of_its_source() {
    let real = real("standby");
    let (p, c) = source(&real);
    snapshot(real.host(), &c, "first").unwrap();
    let me = Caller::default();
    let copy = |name: &str, new_identity, start| {
        let request = CopyRequest { target_project_id: Some(p.to_string()), name: Some(name.into()), new_identity, start: Some(start), ..Default::default() };
        let id = real.host().copy_container(&me, &c, request).unwrap().id;
        at_rest(&real, &id);
        id
    };
    let same = copy("same", Some(false), true);
    assert_eq!((machine_id(&real, &same).as_str(), identity(&real, &same)), (ID, None));

    // One that has not booted waits with it, and a sync makes it stand by.
    let standby = copy("standby", None, false);
    assert!(identity(&real, &standby).unwrap().pending);
    let later = copy("later", None, false);
    real.sh(&c, "echo more > /root/more");
    real.host().sync_container(&me, &standby, &SyncRequest::default()).unwrap();
    at_rest(&real, &standby);
    assert_eq!(identity(&real, &standby), None);
    for id in [&standby, &later] {
        real.host().lifecycle(&me, id, Verb::Start, None).unwrap();
        assert_eq!(real.host().container(id).unwrap().status, Status::Running);
    }
    assert_eq!(machine_id(&real, &standby), ID);
    assert_ne!(machine_id(&real, &later), ID);
    assert!(!identity(&real, &later).unwrap().pending);
    assert_clean(real.host(), "after copies");
}
