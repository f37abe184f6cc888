//! Uploads that are refused before their end: the client shows the server's answer, however much it still had to send.

use crate::errors::{World, world_with};
use hoody_state::host::Settings;
use hoody_state::units::Bytes;
use hoody_state_http::limits::Limits;
use std::io::Write;
use std::process::{Command, Output, Stdio};

/// A tar with one file of this many MiB of zeros; the file system keeps them as a hole.
fn large_tar(mib: u64) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_path("bin/big").unwrap();
    header.set_size(mib << 20);
    header.set_mode(0o644);
    header.set_cksum();
    file.as_file().write_all(header.as_bytes()).unwrap();
    file.as_file().set_len((mib << 20) + 2048).unwrap();
    file
}

fn small_pool() -> World {
    let w = world_with(Settings::default(), Limits::default());
    w.store.set_capacity(Bytes::mib(80));
    w
}

fn client(w: &World, over_unix: bool, file: &str, stdin: Stdio) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hoody-state"));
    if over_unix {
        command.arg("--socket").arg(&w.s.socket);
    } else {
        command.args(["--url", &format!("http://{}", w.s.address)]);
    }
    command.args(["--token", &w.s.token, "image", "import", "big", file]).stdin(stdin).output().unwrap()
}

#[test]
fn an_image_larger_than_the_pool_is_refused_with_the_servers_words() {
    let w = small_pool();
    let tar = large_tar(300);
    for (over_unix, from_stdin) in [(false, false), (true, false), (false, true)] {
        let path = tar.path().to_str().unwrap();
        let out = if from_stdin { client(&w, over_unix, "-", std::fs::File::open(path).unwrap().into()) } else { client(&w, over_unix, path, Stdio::null()) };
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(said.contains("[pool_full]") && said.contains("above its reserve"), "{over_unix} {from_stdin}: {said}");
        assert_eq!(out.status.code(), Some(6), "{said}");
    }
    assert_eq!(w.s.get("/api/v1/images/big").code(), "image_not_found");
}

#[test]
fn curl_shows_the_servers_answer_too() {
    let w = small_pool();
    let tar = large_tar(300);
    for expect in ["Expect:", "Expect: 100-continue"] {
        let out = Command::new("curl")
            .args(["-sS", "-T", tar.path().to_str().unwrap(), "-H", expect, "-H", &format!("Authorization: Bearer {}", w.s.token)])
            .arg(format!("http://{}/api/v1/images/big", w.s.address))
            .output()
            .expect("this test needs curl");
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(said.contains("pool_full"), "{expect} {said} {}", String::from_utf8_lossy(&out.stderr));
    }
}

#[test]
fn a_refusal_before_the_first_byte_is_shown_too() {
    let w = small_pool();
    let tar = large_tar(300);
    let taken = w.s.get("/api/v1/images/debian/13").data()["name"].as_str().unwrap().to_owned();
    let mut command = Command::new(env!("CARGO_BIN_EXE_hoody-state"));
    command.args(["--url", &format!("http://{}", w.s.address), "--token", &w.s.token, "image", "import", &taken]).arg(tar.path());
    let said = String::from_utf8(command.output().unwrap().stderr).unwrap();
    assert!(said.contains("[image_exists]"), "{said}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_hoody-state"));
    command.args(["--url", &format!("http://{}", w.s.address), "--token", "hdy_wrong", "image", "import", "big"]).arg(tar.path());
    let said = String::from_utf8(command.output().unwrap().stderr).unwrap();
    assert!(said.contains("[invalid_token]"), "{said}");
}
