//! The backends in `examples/`, which use the public API alone, pass the suites of their traits and serve a host.
#![allow(clippy::unwrap_used, dead_code)]

#[path = "../examples/locked_db.rs"]
mod locked_db;
#[path = "../examples/runtime.rs"]
mod runtime;
#[path = "../examples/share_mount.rs"]
mod share_mount;

#[test]
fn a_runtime_of_ones_own() {
    runtime::main().unwrap();
}

#[test]
fn share_mounts_of_ones_own() {
    share_mount::main().unwrap();
}

#[test]
fn databases_of_ones_own() {
    locked_db::main().unwrap();
}

#[test]
fn each_is_shorter_than_100_lines() {
    for name in ["locked_db", "runtime", "share_mount"] {
        let text = std::fs::read_to_string(format!("{}/examples/{name}.rs", env!("CARGO_MANIFEST_DIR"))).unwrap();
        assert!(text.lines().count() < 100, "{name}: {}", text.lines().count());
    }
}
