#![allow(clippy::unwrap_used)]
use super::*;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;

const ID: &str = "0123456789abcdef0123456789abcdef\n";

fn machine() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for d in ["etc/ssh", "var/lib/dbus", "var/lib/systemd"] {
        fs::create_dir_all(dir.path().join(d)).unwrap();
    }
    let put = |path: &str, text: &[u8]| fs::write(dir.path().join(path), text).unwrap();
    put("etc/machine-id", ID.as_bytes());
    put("etc/hostname", b"source\n");
    put("var/lib/systemd/random-seed", &[9; 512]);
    put("etc/ssh/ssh_host_rsa_key", b"old rsa");
    put("etc/ssh/ssh_host_rsa_key.pub", b"old rsa public");
    put("etc/ssh/ssh_host_ed25519_key", b"old ed25519");
    put("etc/ssh/sshd_config", b"Port 22\n");
    symlink("/etc/machine-id", dir.path().join("var/lib/dbus/machine-id")).unwrap();
    fs::set_permissions(dir.path().join("etc/machine-id"), fs::Permissions::from_mode(0o444)).unwrap();
    dir
}

fn all() -> Identities {
    Identities { parts: IdentityPart::ALL.to_vec() }
}

fn read(dir: &tempfile::TempDir, path: &str) -> Vec<u8> {
    fs::read(dir.path().join(path)).unwrap()
}

#[test]
fn a_copy_gets_what_identifies_a_machine_anew() {
    let dir = machine();
    let known = all().renew(dir.path(), &CopiedIdentity::default(), "copy").unwrap().unwrap();
    let wanted = ["/etc/hostname", "/etc/machine-id", "/etc/ssh/ssh_host_ed25519_key", "/var/lib/systemd/random-seed"];
    assert_eq!(known.renewed, wanted);
    assert_eq!(known.removed, ["/etc/ssh/ssh_host_rsa_key", "/etc/ssh/ssh_host_rsa_key.pub"]);
    let id = String::from_utf8(read(&dir, "etc/machine-id")).unwrap();
    assert!(id != ID && id.len() == 33, "{id}");
    assert_eq!(fs::metadata(dir.path().join("etc/machine-id")).unwrap().mode() & 0o7777, 0o444);
    let seed = read(&dir, "var/lib/systemd/random-seed");
    assert!(seed.len() == 512 && seed != [9; 512]);
    assert_eq!(read(&dir, "etc/ssh/sshd_config"), b"Port 22\n");
    assert!(fs::symlink_metadata(dir.path().join("var/lib/dbus/machine-id")).unwrap().is_symlink());
    assert_eq!(fs::metadata(dir.path().join("etc/ssh/ssh_host_ed25519_key")).unwrap().mode() & 0o7777, 0o600);
    let names: Vec<_> = fs::read_dir(dir.path().join("etc/ssh")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(names.iter().filter(|n| n.starts_with("ssh_host")).count(), 2, "{names:?}");
    assert!(names.iter().all(|n| !n.starts_with('.')), "{names:?}");

    // It is its own from here on.
    assert_eq!(all().renew(dir.path(), &known, "copy").unwrap(), None);
    assert_eq!(read(&dir, "etc/machine-id"), id.as_bytes());

    // A snapshot that came from the source is restored: its identity is back, but what was changed since stays.
    fs::write(dir.path().join("etc/machine-id"), ID).unwrap();
    fs::write(dir.path().join("etc/ssh/ssh_host_rsa_key"), "old rsa").unwrap();
    let key = read(&dir, "etc/ssh/ssh_host_ed25519_key");
    let again = all().renew(dir.path(), &known, "copy").unwrap().unwrap();
    assert_ne!(read(&dir, "etc/machine-id"), ID.as_bytes());
    assert!(!dir.path().join("etc/ssh/ssh_host_rsa_key").exists());
    assert_eq!(read(&dir, "etc/ssh/ssh_host_ed25519_key"), key, "a key of its own is kept");
    assert_eq!(again.inherited, known.inherited);
}

#[test]
fn openssh_reads_the_new_key() {
    let dir = machine();
    all().renew(dir.path(), &CopiedIdentity::default(), "copy").unwrap().unwrap();
    let key = dir.path().join("etc/ssh/ssh_host_ed25519_key");
    let out = Command::new("ssh-keygen").arg("-y").arg("-f").arg(&key).output().expect("this test needs ssh-keygen (apt-get install openssh-client)");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(out.stdout, read(&dir, "etc/ssh/ssh_host_ed25519_key.pub"));
}

#[test]
fn what_is_no_such_file_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("etc/ssh")).unwrap();
    fs::create_dir_all(dir.path().join("var/lib")).unwrap();
    fs::write(outside.path().join("random-seed"), "theirs").unwrap();
    fs::write(outside.path().join("ssh_host_rsa_key"), "theirs").unwrap();
    fs::write(dir.path().join("etc/machine-id"), "uninitialized\n").unwrap();
    symlink(outside.path(), dir.path().join("var/lib/systemd")).unwrap();
    symlink(outside.path().join("ssh_host_rsa_key"), dir.path().join("etc/ssh/ssh_host_rsa_key")).unwrap();
    nix::unistd::mkfifo(&dir.path().join("etc/ssh/ssh_host_dsa_key"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let known = all().renew(dir.path(), &CopiedIdentity::default(), "copy").unwrap().unwrap();
    assert_eq!((known.renewed.len(), known.removed.len()), (0, 0), "{known:?}");
    assert_eq!(fs::read(outside.path().join("random-seed")).unwrap(), b"theirs");
    assert_eq!(fs::read(dir.path().join("etc/machine-id")).unwrap(), b"uninitialized\n");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 2);
    // An image without any of it.
    let bare = tempfile::tempdir().unwrap();
    all().renew(bare.path(), &CopiedIdentity::default(), "copy").unwrap().unwrap();
    assert_eq!(fs::read_dir(bare.path()).unwrap().count(), 0);
}

#[test]
fn more_host_keys_than_a_machine_has_are_left_alone() {
    let dir = machine();
    let key = dir.path().join("etc/ssh/ssh_host_rsa_key");
    (0..1000).for_each(|n| fs::hard_link(&key, dir.path().join(format!("etc/ssh/ssh_host_{n}_key"))).unwrap());
    let known = all().renew(dir.path(), &CopiedIdentity::default(), "copy").unwrap().unwrap();
    assert_eq!((known.renewed.len(), known.removed.len()), (3, 0), "{known:?}");
    assert_eq!(fs::read_dir(dir.path().join("etc/ssh")).unwrap().count(), 1004);
}

#[test]
fn only_the_chosen_parts_are_exchanged() {
    let dir = machine();
    let some = Identities { parts: vec![IdentityPart::RandomSeed] };
    let known = some.renew(dir.path(), &CopiedIdentity::default(), "source").unwrap().unwrap();
    assert_eq!(known.renewed, ["/var/lib/systemd/random-seed"]);
    assert_eq!(read(&dir, "etc/machine-id"), ID.as_bytes());
    assert_eq!(read(&dir, "etc/ssh/ssh_host_rsa_key"), b"old rsa");
}

#[test]
fn two_machine_ids_become_one() {
    let dir = machine();
    fs::remove_file(dir.path().join("var/lib/dbus/machine-id")).unwrap();
    fs::write(dir.path().join("var/lib/dbus/machine-id"), ID).unwrap();
    all().renew(dir.path(), &CopiedIdentity::default(), "copy").unwrap().unwrap();
    assert_eq!(read(&dir, "etc/machine-id"), read(&dir, "var/lib/dbus/machine-id"));
}

#[test]
fn paths_of_a_machines_own_are_known() {
    for path in ["/etc/machine-id", "/etc/hostname", "/etc/ssh/ssh_host_rsa_key.pub", "var/lib/systemd/random-seed"] {
        assert!(is_own(path.as_bytes()), "{path}");
    }
    for path in ["/etc/passwd", "/etc/ssh/sshd_config", "/srv/etc/machine-id", "/etc/ssh"] {
        assert!(!is_own(path.as_bytes()), "{path}");
    }
}
