//! What cannot be shared, whatever a path looks like.

use super::{attempt, container, offer, real, say, share};
use hoody_state::Caller;
use hoody_state::Code;
use hoody_state::model::{DatabaseScope, NewContainer, NewShare, ShareMode, ShareStatus, Verb};
use hoody_state_workspace::{assert_clean, at_rest, project};

fn private(n: &mut NewContainer) {
    n.databases = Some(DatabaseScope::Private);
}

#[test]
fn a_received_share_cannot_be_shared_again_so_there_are_no_cycles() {
    let real = real("chains");
    let p = project(real.host(), "web");
    let (a, b, c) = (container(&real, &p, "a", |_| {}), container(&real, &p, "b", |_| {}), container(&real, &p, "c", |_| {}));
    real.sh(&a, "mkdir /hoody/storage/docs; echo secret > /hoody/storage/docs/f");
    let s = share(&real, &a, "/hoody/storage/docs", &b, ShareMode::Readwrite);
    say(&real, &b, &s, true);
    assert_eq!(real.sh(&b, "cat /hoody/shares/docs/f"), "secret\n");
    // By its name, and by links to it.
    real.sh(&b, "ln -s /hoody/shares/docs /hoody/storage/docs; ln -s ../shares /hoody/storage/all");
    for path in ["/hoody/shares/docs", "/hoody//shares/./docs/"] {
        let new = NewShare { target_container_id: Some(c.clone()), ..offer(path, ShareMode::Readonly) };
        assert_eq!(real.host().create_share(&Caller::default(), &b, new).unwrap_err().code(), Code::InvalidPath);
    }
    for path in ["/hoody/storage/docs", "/hoody/storage/all"] {
        let s = share(&real, &b, path, &c, ShareMode::Readonly);
        assert_eq!(s.status, ShareStatus::Failed, "{path}");
        say(&real, &c, &s, true);
    }
    assert_eq!(real.sh(&c, "ls /hoody/shares"), "");
    // What holds the received directories is shared without them; and a circle ends where it began.
    let s = share(&real, &b, "/hoody", &a, ShareMode::Readwrite);
    say(&real, &a, &s, true);
    assert_eq!(
        real.sh(&a, "ls /hoody/shares/hoody /hoody/shares/hoody/shares"),
        "/hoody/shares/hoody:\ndatabases\nshares\nsnapshots\nstorage\n\n/hoody/shares/hoody/shares:\n"
    );
    real.sh(&a, "ln -s /hoody/shares/hoody /hoody/storage/docs/round");
    assert_ne!(attempt(&real, &b, "ls /hoody/shares/docs/round/").exit_code, 0, "a link is the reader's own");
    assert_clean(real.host(), "with chains");
}

/// Whatever leads to the files behind the lock broker would let SQLite write where nobody keeps its locks.
#[test]
fn private_databases_cannot_be_shared_past_their_locks() {
    let real = real("around");
    let p = project(real.host(), "web");
    let (owner, receiver) = (container(&real, &p, "owner", private), container(&real, &p, "receiver", |_| {}));
    real.sh(&owner, "mkdir -p /hoody/databases/app; echo x > /hoody/databases/app/f; ln -s /hoody/databases /hoody/storage/l; ln -s / /hoody/storage/root");
    for path in ["/", "/hoody", "/hoody/storage/l", "/hoody/storage/l/app", "/hoody/storage/root", "/hoody/storage/root/hoody"] {
        let s = share(&real, &owner, path, &receiver, ShareMode::Readwrite);
        assert_eq!(s.status, ShareStatus::Failed, "{path}");
        assert!(s.status_message.as_ref().unwrap().contains("/hoody/databases"), "{s:?}");
        say(&real, &receiver, &s, true);
    }
    assert_eq!(real.sh(&receiver, "ls /hoody/shares"), "");
    let new = NewShare { target_container_id: Some(receiver.clone()), alias: Some("mine".into()), ..offer("/hoody/databases/app", ShareMode::Readwrite) };
    say(&real, &receiver, &real.host().create_share(&Caller::default(), &owner, new).unwrap(), true);
    assert_eq!(real.sh(&receiver, "cat /hoody/shares/mine/f; grep -c ' /hoody/shares/mine fuse ' /proc/mounts"), "x\n1\n", "through the same daemon");
    assert_clean(real.host(), "with refused shares");
}

/// A container makes its own `/hoody`, in each way that it can.
#[test]
fn a_container_that_replaces_its_own_directories_starts_and_reaches_nothing_else() {
    let real = real("shapes");
    let p = project(real.host(), "web");
    let me = Caller::default();
    let before: Vec<_> = std::fs::read_dir("/etc").unwrap().map(|e| e.unwrap().file_name()).collect();
    for (name, scope, shape) in [
        ("file", DatabaseScope::Private, "rm -rf hoody; echo x > hoody"),
        ("dangling", DatabaseScope::Project, "rm -rf hoody; ln -s /nowhere hoody"),
        ("loop", DatabaseScope::Private, "rm -rf hoody; ln -s hoody hoody"),
        ("up", DatabaseScope::Project, "rm -rf hoody; ln -s ../../../../../../etc hoody"),
        ("ram", DatabaseScope::Private, "rm -rf ramdisk; ln -s /etc ramdisk"),
        ("shares", DatabaseScope::Project, "rm -rf hoody/shares; ln -s /proc hoody/shares"),
        ("fifo", DatabaseScope::Private, "rm -rf hoody/databases; mkfifo hoody/databases"),
    ] {
        let c = container(&real, &p, name, |n| n.databases = Some(scope));
        real.host().lifecycle(&me, &c, Verb::ForceStop, None).unwrap();
        let done = std::process::Command::new("sh").arg("-c").arg(shape).current_dir(real.live(&c)).status().unwrap();
        assert!(done.success(), "{name}");
        // It may be refused with a reason, or start with its own files under that name; no more.
        let started = real.host().lifecycle(&me, &c, Verb::Start, None);
        println!("{name}: {:?}", started.as_ref().map(|a| a.status).map_err(|e| e.message().to_owned()));
        assert_eq!(std::fs::read_dir("/etc").unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>(), before, "{name}: nothing of the host is touched");
        if let Err(e) = started {
            assert_eq!(e.code(), Code::StartFailed, "{name}: {e}");
        }
        real.host().delete_container(&me, &c).unwrap();
    }
    at_rest(real.host());
    assert_clean(real.host(), "after containers of all shapes");
}
