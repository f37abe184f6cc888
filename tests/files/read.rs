//! Reading files and directories.

use crate::client::{Stage, head, rest};
use hoody_state::model::Rights;
use hoody_state::{Caller, Code};
use hoody_state_workspace::{RealHost, container, programs, project};
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, chown, lchown, symlink};

#[test]
fn a_file_is_read_with_ranges_and_conditions() {
    let s = Stage::new("files-read");
    let text: Vec<u8> = (0..1_000_000u32).map(|i| (i % 251) as u8).collect();
    fs::create_dir_all(s.live.join("srv")).unwrap();
    fs::write(s.live.join("srv/data"), &text).unwrap();
    fs::write(s.live.join("srv/empty"), "").unwrap();
    fs::write(s.live.join("srv/page.html"), "<script>alert(1)</script>").unwrap();
    fs::write(s.live.join("srv/a.txt"), "text").unwrap();
    s.snapshot("one");
    fs::write(s.live.join("srv/data"), "later").unwrap();

    let a = s.get("one", "/srv/data");
    assert_eq!((a.status, a.body == text, a.header("accept-ranges"), a.header("content-length")), (200, true, "bytes", "1000000"));
    assert_eq!((a.header("x-content-type-options"), a.header("content-type")), ("nosniff", "application/octet-stream"));
    assert!(a.header("content-security-policy").starts_with("sandbox"));
    assert_eq!(a.header("content-disposition"), "attachment; filename*=UTF-8''data");
    assert_eq!(s.get("live", "/srv/data").text(), "later");

    let etag = a.header("etag").to_owned();
    assert_eq!(s.get_with("one", "/srv/data", &[("If-None-Match", &etag)]).status, 304);
    assert_eq!(s.get_with("live", "/srv/data", &[("If-None-Match", &etag)]).status, 200, "it was changed since");
    let range = |r: &str| s.get_with("one", "/srv/data", &[("Range", r)]);
    let a = range("bytes=1000-1999");
    assert_eq!((a.status, a.body == text[1000..2000], a.header("content-range")), (206, true, "bytes 1000-1999/1000000"));
    assert_eq!(range("bytes=-10").body, text[999_990..]);
    assert_eq!(range("bytes=0-1,5-6").status, 200);
    let a = range("bytes=1000000-");
    assert_eq!((a.status, a.code(), a.header("content-range")), (416, "range_not_satisfiable".into(), "bytes */1000000"));
    let resumed = s.get_with("one", "/srv/data", &[("Range", "bytes=500000-"), ("If-Range", &etag)]);
    assert_eq!((resumed.status, resumed.body == text[500_000..]), (206, true));
    assert_eq!(s.get_with("live", "/srv/data", &[("Range", "bytes=1-2"), ("If-Range", &etag)]).text(), "later", "another file is sent as a whole");

    let h = s.request("HEAD", &s.url("one", "/srv/data"), &[], b"");
    assert_eq!((h.status, h.header("content-length"), h.header("etag")), (200, "1000000", etag.as_str()));
    let e = s.get("one", "/srv/empty");
    assert_eq!((e.status, e.body.len(), e.header("content-length")), (200, 0, "0"));
    assert_eq!(s.get_with("one", "/srv/empty", &[("Range", "bytes=0-")]).status, 416);
    let page = s.get("one", "/srv/page.html");
    assert_eq!((page.header("content-type"), page.header("content-disposition")), ("application/octet-stream", "attachment; filename*=UTF-8''page%2Ehtml"));
    assert!(s.get("one", "/srv/a.txt").header("content-disposition").starts_with("inline"));
}

#[test]
fn a_file_that_was_not_changed_has_the_same_tag_in_every_state() {
    let s = Stage::new("files-tag");
    let tag = |state: &str| s.get(state, "/etc/kept").header("etag").to_owned();
    fs::write(s.live.join("etc/kept"), "x").unwrap();
    s.snapshot("one");
    let first = tag("one");
    s.snapshot("two");
    s.real.host().restore(&Caller::default(), &s.id, "one", hoody_state::model::RestoreOptions::default()).unwrap();
    assert_eq!((tag("two"), tag("live")), (first.clone(), first.clone()));
    fs::write(s.live.join("etc/kept"), "y").unwrap();
    assert_ne!(tag("live"), first);
    assert_eq!(tag("one"), first);
}

#[test]
fn a_sparse_file_has_its_holes_as_zeros() {
    let s = Stage::new("files-sparse");
    let file = fs::File::create(s.live.join("sparse")).unwrap();
    file.write_all_at(b"end", 3 << 20).unwrap();
    s.snapshot("one");
    let a = s.get("one", "/sparse");
    assert_eq!((a.body.len(), a.complete), ((3 << 20) + 3, true));
    assert!(a.body[..3 << 20].iter().all(|b| *b == 0) && a.body.ends_with(b"end"));
    let entry = s.get("one", "/sparse?stat=true").data();
    assert!(entry["allocated"].as_u64().unwrap() < 1 << 20, "{entry}");
}

#[test]
fn hostile_names_and_paths_are_read_or_refused() {
    let s = Stage::new("files-names");
    let dir = s.live.join("odd");
    fs::create_dir(&dir).unwrap();
    let long = "x".repeat(255);
    for name in [b"new\nline".as_slice(), b"not-utf8-\xff\xfe", long.as_bytes(), b"a b%2F+?#", b"versions"] {
        fs::write(dir.join(OsStr::from_bytes(name)), name).unwrap();
    }
    s.snapshot("one");
    for (url, name) in [
        ("/odd/new%0Aline".to_owned(), b"new\nline".as_slice()),
        ("/odd/not-utf8-%FF%fe".to_owned(), b"not-utf8-\xff\xfe"),
        ("//odd/not-utf8-%FF%FE".to_owned(), b"not-utf8-\xff\xfe"),
        (format!("/odd/{long}"), long.as_bytes()),
        ("/odd/a%20b%252F+%3F%23".to_owned(), b"a b%2F+?#"),
        ("/odd/versions".to_owned(), b"versions"),
    ] {
        let a = s.get("one", &url);
        assert_eq!((a.status, a.body.as_slice()), (200, name), "{url}: {}", a.text());
    }
    let listing = s.get("one", "/odd").data();
    let odd = listing["entries"].as_array().unwrap().iter().find(|e| e["name_encoded"].is_string()).unwrap();
    assert_eq!((&odd["name"], &odd["name_encoded"]), (&"not-utf8-\u{fffd}\u{fffd}".into(), &"not-utf8-%FF%FE".into()));
    for bad in ["/..", "/a/../b", "/%2e%2e/x", "/a/./b", "/a//b", "/a%00b", "/a%2", &format!("/{}", "x".repeat(256)), &format!("/{}", "a/".repeat(2100))] {
        assert_eq!(s.get("one", bad).code(), "invalid_path", "{bad}");
    }
    for (missing, code) in
        [("/nope", "file_not_found"), ("/odd/versions/x", "not_a_directory"), ("/ramdisk/x", "not_in_volume"), ("/proc/1/environ", "not_in_volume")]
    {
        assert_eq!(s.get("one", missing).code(), code, "{missing}");
        assert_eq!(s.get("live", missing).code(), code, "{missing}");
    }
    assert_eq!(s.get("nope", "/odd").code(), Code::SnapshotNotFound.as_str());
}

#[test]
fn special_files_are_shown_and_never_opened_and_links_stay_inside() {
    let s = Stage::new("files-special");
    let (at, base) = (s.live.join("special"), fs::metadata(&s.live).unwrap().uid());
    fs::create_dir(&at).unwrap();
    nix::unistd::mkfifo(&at.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at.join("socket")).unwrap();
    nix::sys::stat::mknod(&at.join("null"), nix::sys::stat::SFlag::S_IFCHR, nix::sys::stat::Mode::S_IRWXU, nix::sys::stat::makedev(1, 3)).unwrap();
    for (link, to) in [("out", "../../../../../../etc/hostname"), ("abs", "/special/file"), ("loop", "loop")] {
        symlink(to, at.join(link)).unwrap();
    }
    fs::write(at.join("file"), "inside").unwrap();
    fs::write(s.live.join("etc/hostname"), "of the container").unwrap();
    chown(at.join("file"), Some(base + 1000), Some(base + 7)).unwrap();
    lchown(at.join("abs"), Some(5), None).unwrap();
    s.snapshot("one");
    for state in ["one", "live"] {
        for name in ["fifo", "socket", "null"] {
            assert_eq!(s.get(state, &format!("/special/{name}")).code(), Code::NotARegularFile.as_str(), "{name}");
        }
        assert_eq!(s.get(state, "/special/out").text(), "of the container");
        assert_eq!(s.get(state, "/special/abs").text(), "inside");
        assert_eq!(s.get(state, "/special/loop").code(), "file_not_found");
        let stat = |name: &str| s.get(state, &format!("/special/{name}?stat=true")).data();
        assert_eq!((&stat("null")["type"], &stat("null")["device"]), (&"char_device".into(), &"1:3".into()));
        assert_eq!((&stat("loop")["type"], &stat("loop")["target"]), (&"symlink".into(), &"loop".into()));
        assert_eq!((&stat("file")["uid"], &stat("file")["gid"], &stat("file")["mode"]), (&1000.into(), &7.into(), &"0644".into()));
        assert_eq!(stat("abs")["uid"], 65_534, "the container does not have that user");
    }
    let root = s.get("one", "").data();
    let names: Vec<&str> = root["entries"].as_array().unwrap().iter().map(|e| e["name"].as_str().unwrap()).collect();
    assert!(names.is_sorted() && names.contains(&"special"), "{names:?}");
    let proc = root["entries"].as_array().unwrap().iter().find(|e| e["name"] == "proc").unwrap();
    assert_eq!((&proc["mounted"], &proc["type"]), (&true.into(), &"directory".into()));
}

#[test]
fn a_directory_is_paged_by_name_whatever_changes_in_it() {
    let s = Stage::new("files-pages");
    let at = s.live.join("many");
    fs::create_dir(&at).unwrap();
    for i in 0..25 {
        fs::write(at.join(format!("f{i:02}\n")), "").unwrap();
    }
    let mut names = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = s.get("live", &format!("/many?limit=10{cursor}")).data();
        names.extend(page["entries"].as_array().unwrap().iter().map(|e| e["name"].as_str().unwrap().to_owned()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={}", next.replace('%', "%25"));
        // What comes and goes before the cursor moves nothing.
        let _ = fs::remove_file(at.join("f00\n"));
        fs::write(at.join("a"), "").unwrap();
    }
    assert_eq!(names, (0..25).map(|i| format!("f{i:02}\n")).collect::<Vec<_>>());
    for bad in ["limit=0", "limit=10001", "limit=-1", "cursor=%25zz"] {
        assert_eq!(s.get("live", &format!("/many?{bad}")).status, 400, "{bad}");
    }
}

#[test]
fn a_download_completes_although_its_snapshot_is_deleted() {
    let s = Stage::new("files-deleted");
    let size = 64 << 20;
    fs::write(s.live.join("large"), vec![7; size]).unwrap();
    s.snapshot("one");
    fs::remove_file(s.live.join("large")).unwrap();
    let mut stream = s.send("GET", &s.url("one", "/large"), &[], b"");
    let (status, headers) = head(&mut stream);
    let mut first = vec![0; 1000];
    stream.read_exact(&mut first).unwrap();
    s.real.host().delete_snapshot(&Caller::default(), &s.id, "one").unwrap();
    assert_eq!(s.get("one", "/large").code(), "snapshot_not_found");
    s.real.host().delete_container(&Caller::default(), &s.id).unwrap();
    let left = [("content-length".to_owned(), (size - 1000).to_string())].into();
    let (body, complete) = rest(&mut stream, "GET", status, &left);
    assert_eq!((status, headers["content-length"].clone(), complete), (200, size.to_string(), true));
    assert!(first.iter().chain(&body).all(|b| *b == 7));
}

#[test]
fn a_live_file_that_becomes_shorter_is_not_taken_for_complete() {
    let s = Stage::new("files-shorter");
    fs::write(s.live.join("log"), vec![7; 64 << 20]).unwrap();
    let mut stream = s.send("GET", &s.url("live", "/log"), &[], b"");
    let (status, headers) = head(&mut stream);
    fs::write(s.live.join("log"), "rotated").unwrap();
    let (_, complete) = rest(&mut stream, "GET", status, &headers);
    assert!(!complete);
}

#[test]
fn a_token_of_another_project_reads_nothing_and_a_read_only_one_reads() {
    let s = Stage::new("files-rights");
    fs::write(s.live.join("etc/secret"), "secret").unwrap();
    s.snapshot("one");
    let other = project(s.real.host(), "other");
    container(s.real.host(), &other, "theirs").unwrap();
    let token = |p, rights, name| s.real.host().create_token(name, Some(vec![p]), rights).unwrap().1;
    let (mine, theirs) = (token(s.project.clone(), Rights::ReadOnly, "mine"), token(other, Rights::Full, "theirs"));
    for path in ["", "/etc", "/etc/secret", "/etc/secret?stat=true", "/etc?archive=tar", "/etc?archive=tar.zst"] {
        for state in ["one", "live"] {
            let with = |t: &str| s.get_with(state, path, &[("Authorization", &format!("Bearer {t}"))]);
            assert_eq!((with(&mine).status, with(&theirs).status, with(&theirs).code()), (200, 404, "container_not_found".into()), "{state}{path}");
        }
    }
}

#[test]
fn live_is_the_present_state_even_if_a_snapshot_is_called_so() {
    let s = Stage::new("files-live");
    fs::write(s.live.join("etc/x"), "then").unwrap();
    s.snapshot("live");
    fs::write(s.live.join("etc/x"), "now").unwrap();
    assert_eq!(s.get("live", "/etc/x").text(), "now");
    let list = s.real.host().snapshots(&s.id).unwrap().snapshots;
    assert_eq!(list[0].name.as_str(), "live-2", "so that it can be named");
    assert_eq!(s.get("live-2", "/etc/x").text(), "then");
}

#[test]
fn databases_are_those_of_the_state() {
    let s = Stage::over(RealHost::with_databases("files-databases", programs::daemon()));
    let write = |text: &str| s.real.sh(&s.id, &format!("echo -n {text} > /hoody/databases/x && sync"));
    write("one");
    s.snapshot("one");
    write("second");
    assert_eq!((s.get("one", "/hoody/databases/x").text(), s.get("live", "/hoody/databases/x").text()), ("one".into(), "second".into()));
    let names = |state: &str| s.get(state, "/hoody/databases").data()["entries"].as_array().unwrap().iter().map(|e| e["name"].clone()).collect::<Vec<_>>();
    assert_eq!((names("one"), names("live")), (vec!["x".into()], vec!["x".into()]));
    // The archive of a directory above has them in their place.
    for (path, name) in [("/hoody", "./databases/x"), ("/hoody/databases", "./x"), ("", "./hoody/databases/x")] {
        let a = s.get("one", &format!("{path}?archive=tar"));
        assert!(a.complete && a.body.windows(name.len() + 1).any(|w| w == [name.as_bytes(), b"\0"].concat()), "{path}");
    }
    let versions = s.request("GET", &format!("/containers/{}/versions/hoody/databases/x", s.id), &[], b"").data();
    assert_eq!(versions["versions"].as_array().unwrap().iter().map(|v| v["entry"]["size"].as_u64().unwrap()).collect::<Vec<_>>(), [6, 3]);
    for (method, path) in [("PUT", "/hoody/databases/x"), ("DELETE", "/hoody/databases/x"), ("DELETE", "/hoody?recursive=true")] {
        assert_eq!(s.request(method, &s.url("live", path), &[], b"y").code(), Code::DatabaseFile.as_str(), "{method} {path}");
    }
    assert_eq!(s.real.sh(&s.id, "cat /hoody/databases/x"), "second");
}
