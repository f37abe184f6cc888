//! `hoody-state cat`, `ls` and `cp`.

use crate::client::Stage;
use hoody_state_workspace::programs;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

impl Stage {
    fn cli(&self, args: &[&OsStr]) -> Output {
        let mut command = Command::new(programs::client());
        command.arg("--socket").arg(&self.served.socket).args(args).env_remove("HOODY_TOKEN").output().unwrap()
    }

    fn good(&self, args: &[&str]) -> Vec<u8> {
        let out = self.cli(&args.iter().map(OsStr::new).collect::<Vec<_>>());
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        out.stdout
    }

    fn bad(&self, args: &[&str]) -> (i32, String) {
        let out = self.cli(&args.iter().map(OsStr::new).collect::<Vec<_>>());
        (out.status.code().unwrap(), String::from_utf8_lossy(&out.stderr).into_owned())
    }
}

#[test]
fn files_are_printed_and_directories_listed() {
    let s = Stage::new("files-cli");
    fs::create_dir_all(s.live.join("srv/d")).unwrap();
    fs::write(s.live.join("srv/f"), b"one\n\xff").unwrap();
    fs::write(s.live.join("srv").join(OsStr::from_bytes(b"odd\xff\n")), "odd").unwrap();
    symlink("f", s.live.join("srv/link")).unwrap();
    s.snapshot("before work");
    fs::write(s.live.join("srv/f"), "two").unwrap();
    assert_eq!(s.good(&["cat", "box:before work:/srv/f", "box:/srv/f", "files/box:/srv/link"]), b"one\n\xfftwotwo");
    let list = String::from_utf8(s.good(&["ls", "box:before work:/srv"])).unwrap();
    let rows: Vec<&str> = list.lines().map(|l| l.split_whitespace().next().unwrap()).collect();
    assert_eq!(rows, ["MODE", "d0755", "-0644", "l0777", "-0644"], "{list}");
    assert!(list.contains("link -> f") && list.contains("odd%FF%0A"), "{list}");
    assert!(String::from_utf8(s.good(&["ls", "box:/"])).unwrap().contains("proc (mounted when it runs)"));
    let one: serde_json::Value = serde_json::from_slice(&s.good(&["ls", "-o", "json", "box:/srv/f"])).unwrap();
    assert_eq!(one[0]["size"], 3);
    let versions = String::from_utf8(s.good(&["ls", "--versions", "box:/srv/f"])).unwrap();
    assert!(versions.lines().count() == 3 && versions.contains("beforework"), "{versions}");
    let odd = s.cli(&[OsStr::new("cat"), OsStr::from_bytes(b"box:/srv/odd\xff\n")]);
    assert_eq!(odd.stdout, b"odd");
    for (args, exit, says) in [
        (&["cat", "box:/srv"][..], 4, "directory"),
        (&["cat", "box:/nope"], 3, "file_not_found"),
        (&["cat", "box:nope:/x"], 3, "snapshot_not_found"),
        (&["cat", "box:/srv/../x"], 8, "invalid_path"),
        (&["cat", "/srv/f"], 2, "CONTAINER:/PATH"),
        (&["cp", "a", "b"], 2, "neither"),
        (&["cp", "box:/a", "box:/b"], 2, "both"),
        (&["cp", "/etc/hostname", "box:before work:/srv/x"], 2, "never changes"),
        (&["cp", "/etc", "box:/srv"], 2, "--recursive"),
    ] {
        let (code, message) = s.bad(args);
        assert!(code == exit && message.contains(says), "{args:?}: {code} {message}");
    }
}

#[test]
fn files_and_directories_are_copied_in_and_out() {
    let s = Stage::new("files-cp");
    let here = s.real.dir.join("here");
    fs::create_dir_all(here.join("tree/sub")).unwrap();
    fs::create_dir_all(here.join("tree/nothing/in here")).unwrap();
    fs::write(here.join("run"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(here.join("run"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(here.join("tree/sub/a"), "a").unwrap();
    fs::write(here.join("tree").join(OsStr::from_bytes(b"b\xff")), "b").unwrap();
    symlink("a", here.join("tree/sub/link")).unwrap();
    let at = |p: &str| here.join(p).to_str().unwrap().to_owned();
    fs::create_dir_all(s.live.join("srv")).unwrap();

    s.good(&["cp", &at("run"), "box:/srv"]);
    assert_eq!(fs::metadata(s.live.join("srv/run")).unwrap().permissions().mode() & 0o7777, 0o755);
    assert_eq!(s.bad(&["cp", &at("run"), "box:/srv/x/y/run"]).0, 3);
    s.good(&["cp", "-p", &at("run"), "box:/srv/x/y/run"]);
    s.good(&["cp", "-r", &at("tree"), "box:/srv"]);
    assert_eq!(fs::read_to_string(s.live.join("srv/tree/sub/a")).unwrap(), "a");
    assert_eq!(fs::read_dir(s.live.join("srv/tree/nothing/in here")).unwrap().count(), 0, "an empty directory is copied too");
    let owner = |path: &str| std::os::unix::fs::MetadataExt::uid(&fs::metadata(s.live.join(path)).unwrap());
    assert_eq!(owner("srv/tree/nothing/in here"), owner("srv/tree/sub/a"));
    assert_eq!(fs::read_to_string(s.live.join("srv/tree").join(OsStr::from_bytes(b"b\xff"))).unwrap(), "b");
    symlink("sub/a", s.live.join("srv/tree/link")).unwrap();
    symlink("/etc", s.live.join("srv/tree/etc")).unwrap();
    s.snapshot("one");
    s.good(&["cp", "box:one:/srv/run", &at("again")]);
    assert_eq!(
        (fs::read(here.join("again")).unwrap(), fs::metadata(here.join("again")).unwrap().permissions().mode() & 0o777),
        (b"#!/bin/sh\n".to_vec(), 0o755)
    );
    assert_eq!(s.good(&["cp", "box:one:/srv/run", "-"]), b"#!/bin/sh\n");
    assert_eq!(s.bad(&["cp", "box:one:/srv/tree", &at("out")]).0, 4);
    for _ in 0..2 {
        // The second time into the directory that is there.
        s.good(&["cp", "-r", "box:one:/srv/tree", &at("out")]);
    }
    for dir in ["out", "out/tree"] {
        assert_eq!(fs::read_to_string(here.join(dir).join("sub/a")).unwrap(), "a");
        assert_eq!(fs::read(here.join(dir).join(OsStr::from_bytes(b"b\xff"))).unwrap(), b"b");
        assert_eq!(fs::read_link(here.join(dir).join("link")).unwrap(), Path::new("sub/a"));
    }
    let left: Vec<_> = fs::read_dir(&here).unwrap().map(|e| e.unwrap().file_name()).filter(|n| n.to_string_lossy().contains(".part-")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn forks_are_shown_by_their_names_and_a_deleted_name_is_free() {
    let s = Stage::new("files-cli-forks");
    let text = |args: &[&str]| String::from_utf8(s.good(args)).unwrap();
    fs::create_dir_all(s.live.join("srv")).unwrap();
    s.good(&["container", "fork", "box", "1", "--prefix", "try"]);
    let all = s.real.host().containers(&hoody_state::model::PageRequest::first(), None, None).unwrap().rows;
    let fork = all.iter().find(|c| c.id != s.id).unwrap();
    fs::write(s.real.live(&fork.id).join("srv/new"), "of the fork").unwrap();
    let name = fork.name.as_str();
    let log = text(&["log", name]);
    assert!(log.contains("fork of box") && !log.contains(s.id.as_str()), "{log}");
    // By its id, and yet it is shown by its name.
    let promoted = text(&["--yes", "promote", fork.id.as_str()]);
    assert!(promoted.contains(&format!("1 change is of {name} in box; what box was is kept as undo-")), "{promoted}");
    assert_eq!(fs::read_to_string(s.live.join("srv/new")).unwrap(), "of the fork");
    let (code, message) = s.bad(&["--yes", "promote", "box"]);
    assert!(code == 4 && message.contains("not_a_copy"), "{code} {message}");
    for _ in 0..3 {
        s.good(&["--yes", "container", "delete", name]);
        s.good(&["container", "copy", "box", name]);
    }
}

#[test]
fn a_diff_of_a_path_that_neither_state_has_says_so() {
    let s = Stage::new("files-cli-diff");
    fs::create_dir_all(s.live.join("srv/same")).unwrap();
    fs::write(s.live.join("srv/gone"), "x").unwrap();
    s.snapshot("one");
    fs::remove_file(s.live.join("srv/gone")).unwrap();
    s.snapshot("two");
    for to in ["two", "live"] {
        let (code, message) = s.bad(&["diff", "box:one", to, "/srv/nowhere"]);
        assert!(code == 3 && message.contains("neither state has /srv/nowhere"), "{to}: {code} {message}");
        assert_eq!(s.bad(&["diff", "--stat", "box:one", to, "/srv/gone/deeper"]).0, 3);
        s.good(&["diff", "box:one", to, "/srv/same"]);
        s.good(&["diff", "box:one", to, "/proc"]);
        assert!(String::from_utf8(s.good(&["diff", "box:one", to, "/srv/gone"])).unwrap().contains("gone"));
    }
}
