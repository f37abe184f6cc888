//! The programs that tests start: the server, the client and the daemon of the databases, always as the sources are now.
//!
//! Cargo hands a test the path of a binary of the test's own package only, and these belong to others. `cargo test` builds them before it runs a test, but not if
//! only tests of this package are chosen. So the first test of a process that needs them asks cargo once more: with the packages and features of
//! `cargo test --workspace`, so that after that command there is nothing to build.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// `hoody-state-http`.
#[must_use]
pub fn server() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| directory().join("hoody-state-http"))
}

/// `hoody-state`.
#[must_use]
pub fn client() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| directory().join("hoody-state"))
}

/// `hoody-state-fuse`.
#[must_use]
pub fn daemon() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| directory().join("hoody-state-fuse"))
}

/// Where they are: `HOODY_PROGRAMS` if it is set, to try programs that were built in another way.
fn directory() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| std::env::var_os("HOODY_PROGRAMS").map_or_else(build, PathBuf::from))
}

/// What cargo tells a test about the test's own package. Build scripts that look at it would run again.
const OF_THIS_TEST: [&str; 5] = ["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];

/// Builds them with the profile of this test, beside it.
fn build() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    // target/debug/deps/kill-0123456789abcdef
    let (Some(built), Some(target)) = (test.ancestors().nth(2), test.ancestors().nth(3)) else { panic!("{} is in no target directory", test.display()) };
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--quiet", "--locked", "--workspace", "--bins", "--test", "documents"]);
    cargo.arg("--target-dir").arg(target);
    match built.file_name().and_then(|n| n.to_str()) {
        Some("debug") | None => {}
        Some(profile) => _ = cargo.args(["--profile", profile]),
    }
    for (name, _) in std::env::vars_os() {
        if OF_THIS_TEST.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            cargo.env_remove(name);
        }
    }
    let status = cargo.status().unwrap_or_else(|e| panic!("this test needs cargo, to build the server and the daemon: {e}"));
    assert!(status.success(), "the server and the daemon do not build: {cargo:?}");
    built.to_owned()
}
