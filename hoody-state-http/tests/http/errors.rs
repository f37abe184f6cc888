//! Every documented code is produced.

use crate::support::{Answer, Server};
use hoody_state::HostBuilder;
use hoody_state::freeze::memory::MemoryFreezer;
use hoody_state::host::Settings;
use hoody_state::op::step::StepHook;
use hoody_state::runtime::memory::MemoryRuntime;
use hoody_state::snapshot::memory::MemoryStore;
use hoody_state::units::Bytes;
use hoody_state::{Code, Error, Result};
use hoody_state_http::error_map;
use hoody_state_http::limits::Limits;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// Codes that requests to a sound memory host do not meet, and the file whose tests produce them.
const ELSEWHERE: &[(Code, &str)] = &[
    (Code::DatabasesShared, "tests/filesystem/databases.rs"),
    (Code::CopyHasChanges, "tests/transfer/local.rs"),
    (Code::SnapshotNotOwn, "tests/filesystem/container_api.rs"),
    (Code::ForkLimit, "tests/filesystem/container_api.rs"),
    (Code::RateLimited, "tests/filesystem/container_api.rs"),
    (Code::BranchPointNotFound, "tests/promote.rs"),
    (Code::NotRelated, "tests/promote.rs"),
    (Code::PromoteConflicts, "tests/promote.rs"),
    (Code::HandoverRefused, "tests/transfer/rights.rs"),
    (Code::HandoverTaken, "tests/transfer/rights.rs"),
    (Code::BaseMissing, "hoody-state/src/snapshot/suite/transfer.rs"),
    (Code::TransferCut, "hoody-state/src/snapshot/suite/transfer.rs"),
    (Code::StreamCorrupt, "hoody-state/src/snapshot/suite/transfer.rs"),
    (Code::StreamRefused, "hoody-state/src/snapshot/btrfs/transfer_tests.rs"),
    (Code::PathTooLong, "hoody-state/src/snapshot/btrfs/send.rs"),
    (Code::TooManyAttributes, "hoody-state/src/tree/tests.rs"),
    (Code::DatabasesBusy, "hoody-state/src/locked_db/merge_tests.rs"),
    (Code::BackingInUse, "hoody-state-fuse/tests/claims.rs"),
    (Code::DatabasesUnavailable, "hoody-state/src/locked_db/tests.rs"),
    (Code::DatabasesFull, "hoody-state-fuse/src/mount/volumes.rs"),
    (Code::ShareMountFailed, "hoody-state/src/host/share_tests.rs"),
    (Code::AddressLimit, "hoody-state-http/tests/http/limits.rs"),
    (Code::TooManyConnections, "hoody-state-http/tests/http/limits.rs"),
    (Code::ServerBusy, "hoody-state-http/tests/http/limits.rs"),
    (Code::ExecLimit, "hoody-state-http/tests/http/limits.rs"),
    (Code::UploadLimit, "hoody-state-http/tests/http/limits.rs"),
    (Code::WaitLimit, "hoody-state-http/tests/http/limits.rs"),
    (Code::StreamLimit, "hoody-state-http/tests/http/limits.rs"),
    (Code::ContainerTaskLimit, "hoody-state/src/runtime/oci/tasks.rs"),
    (Code::PoolTaskLimit, "hoody-state/src/runtime/oci/tasks.rs"),
    (Code::ImageHeaderTooLarge, "hoody-state/src/image/tests/hostile.rs"),
    (Code::InvalidCwd, "hoody-state/src/runtime/oci/tests.rs"),
    (Code::WorkingDirectoryNotFound, "hoody-state/src/runtime/oci/tests.rs"),
    (Code::NameAmbiguous, "tests/regressions/token_name_that_is_an_id.rs"),
    (Code::PoolReadOnly, "tests/faults_space.rs"),
    (Code::DiskLimitReached, "tests/faults/steps.rs"),
    (Code::TooManyNestedVolumes, "tests/faults_space.rs"),
    (Code::RequestTimeout, "hoody-state-http/tests/http/slow.rs"),
    (Code::PeerFailed, "hoody-state-http/src/transport.rs"),
    (Code::DiffNeedsWalk, "hoody-state/src/snapshot/btrfs/compare_tests/cases.rs"),
    (Code::FileNotFound, "tests/files/read.rs"),
    (Code::NotADirectory, "tests/files/read.rs"),
    (Code::IsADirectory, "hoody-state/src/tree/tests.rs"),
    (Code::NotARegularFile, "tests/files/read.rs"),
    (Code::RangeNotSatisfiable, "tests/files/read.rs"),
    (Code::NotInVolume, "tests/files/read.rs"),
    (Code::PreconditionFailed, "tests/files/write.rs"),
    (Code::DatabaseFile, "tests/files/write.rs"),
];

/// Codes that no test produces, and why.
const NOT_TESTED: &[(Code, &str)] = &[
    (Code::DedupeUnsupported, "it takes a store of somebody else's that cannot share data"),
    (Code::DiffUnsupported, "it takes a store of somebody else's that cannot compare"),
    (Code::DiffTooLarge, "it takes eight million inodes that differ"),
    (Code::IdBaseDiffers, "it takes two pools on real file systems"),
    (Code::TooManyStreams, "it takes 16 transfers at once"),
    (Code::TooManyVolumes, "it takes 10,000 subvolumes"),
    (Code::SessionLimit, "it takes more Socket.IO sessions than one address may have"),
    (Code::RamdiskFailed, "it takes a kernel that cannot mount a tmpfs"),
    (Code::ExecFailed, "it takes a runtime that fails for a reason of its own"),
    (Code::NotReady, "it takes a pool that went away under a running server"),
];

struct Seen(BTreeMap<String, u16>);

impl Seen {
    fn expect(&mut self, code: &str, answer: &Answer) {
        assert_eq!(answer.code(), code, "{}", answer.text());
        self.0.insert(code.to_owned(), answer.status);
    }
}

#[test]
fn every_documented_code_is_produced_with_its_status() {
    let s = Server::start();
    let mut seen = Seen(BTreeMap::new());
    requests(&s, &mut seen);
    things(&s, &mut seen);
    snapshots(&s, &mut seen);
    shares(&s, &mut seen);
    faults(&mut seen);
    limits(&mut seen);
    peers(&s, &mut seen);
    under_way(&mut seen);
    for code in error_map::documented() {
        if ELSEWHERE.iter().chain(NOT_TESTED).any(|(c, _)| *c == code) {
            continue;
        }
        let status = error_map::status(code);
        assert_eq!(seen.0.get(code.as_str()), Some(&status), "{code} is documented with {status}");
    }
}

fn workspace() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn codes_produced_elsewhere_are_in_the_file_named() {
    for (code, file) in ELSEWHERE {
        let text = std::fs::read_to_string(workspace().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        assert!(text.contains(&format!("Code::{code:?}")) || text.contains(&format!("\"{code}\"")), "{file} does not name {code}");
    }
}

/// A file that names codes without producing errors.
fn is_table(path: &std::path::Path) -> bool {
    ["error/code.rs", "error/table.rs", "src/error_map.rs", "suite.rs"].iter().any(|table| path.to_string_lossy().ends_with(table))
}

/// All sources of the three crates except the tables of codes.
fn sources(dir: &std::path::Path, all: &mut String) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "tests" && name != "suite" {
            sources(&path, all);
        } else if name.ends_with(".rs") && !name.contains("test") && !is_table(&path) {
            all.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn each_code_of_the_table_is_used() {
    let mut all = String::new();
    for crate_name in ["hoody-state", "hoody-state-http", "hoody-state-fuse"] {
        sources(&workspace().join(crate_name).join("src"), &mut all);
    }
    let words: std::collections::HashSet<&str> = all.split(|c: char| !c.is_ascii_alphanumeric() && c != ':').filter(|w| w.contains("Code::")).collect();
    let used = |code: Code| words.iter().any(|w| w.rsplit("Code::").next() == Some(&format!("{code:?}")));
    let unused: Vec<Code> = Code::ALL.iter().copied().filter(|c| !used(*c)).collect();
    assert!(unused.is_empty(), "nothing produces {unused:?}");
}

fn peers(s: &Server, seen: &mut Seen) {
    let project = s.project("copying");
    let id = s.container(&project, "box");
    seen.expect("disk_limit_unsupported", &s.call("PATCH", &format!("/api/v1/containers/{id}"), r#"{"disk":"20G"}"#));
    seen.expect("api_socket_unsupported", &s.call("PATCH", &format!("/api/v1/containers/{id}"), r#"{"api_socket":true}"#));
    let none = "65f0c0ffee000000000000ff";
    seen.expect("source_container_not_found", &s.call("POST", &format!("/api/v1/containers/{none}/copy"), &format!(r#"{{"target_project_id":"{project}"}}"#)));
    seen.expect("not_a_copy", &s.call("POST", &format!("/api/v1/containers/{id}/sync"), ""));
    seen.expect("validation_error", &s.call("POST", &format!("/api/v1/containers/{id}/copy"), ""));
    seen.expect("peer_not_found", &s.call("DELETE", "/api/v1/peers/nobody", ""));
    let add =
        |s: &Server, url: &str, token: &str, name: &str| s.call("POST", "/api/v1/peers", &format!(r#"{{"url":"{url}","token":"{token}","name":"{name}"}}"#));
    seen.expect("no_transport", &add(s, "https://nobody.invalid", &s.token, "x"));
    let [(one, _), (two, _)] = crate::copies::pair();
    let at = |s: &Server| format!("http://{}", s.address);
    let own = one.host.create_token("own", None, hoody_state::model::Rights::Replication).unwrap().1;
    seen.expect("peer_is_self", &add(&one, &at(&one), &own, "me"));
    seen.expect("peer_refused", &add(&one, &at(&two), &own, "x"));
    seen.expect("peer_unreachable", &add(&one, "http://127.0.0.1:9", &own, "x"));
    let [(third, _), _] = crate::copies::pair();
    let token = third.host.create_token("another", None, hoody_state::model::Rights::Replication).unwrap().1;
    seen.expect("peer_name_in_use", &add(&one, &at(&third), &token, "two"));
    let unused = two.host.create_token("unused", None, hoody_state::model::Rights::Replication).unwrap().1;
    let call = |body: &str| two.with_token(&unused, "POST", "/api/v1/replication/call").body(body).send();
    seen.expect("token_not_bound", &call(&format!(r#"{{"call":"state","copy":"{none}"}}"#)));
    seen.expect("peer_token_in_use", &call(&format!(r#"{{"call":"hello","from":"{}"}}"#, one.host.server().id)));
}

fn shares(s: &Server, seen: &mut Seen) {
    let project = s.project("sharing");
    let [owner, receiver, third] = ["owner", "receiver", "third"].map(|n| s.container(&project, n));
    let at = format!("/api/v1/containers/{owner}/storage/shares");
    let create = |path: &str, to: &str| s.call("POST", &at, &format!(r#"{{"source_path":"{path}","mode":"readonly","target_container_id":"{to}"}}"#));
    seen.expect("invalid_path", &create("/proc", &receiver));
    seen.expect("self_share", &create("/a", &owner));
    let id = create("/a", &receiver).data()["id"].as_str().unwrap().to_owned();
    seen.expect("share_already_exists", &create("/a", &receiver));
    seen.expect("share_not_found", &s.get(&format!("{at}/65f0c0ffee000000000000ff")));
    seen.expect("not_a_receiver", &s.call("PATCH", &format!("/api/v1/containers/{third}/storage/incoming/{id}/mount"), r#"{"mount":true}"#));
}

fn requests(s: &Server, seen: &mut Seen) {
    let id = "65f0c0ffee000000000000ff";
    seen.expect("missing_token", &s.bare("GET", "/api/v1/projects").send());
    seen.expect("invalid_token", &s.with_token("x", "GET", "/api/v1/projects").send());
    seen.expect("invalid_credentials", &s.bare("POST", "/api/v1/users/auth/login").body(r#"{"username":"a","password":"b"}"#).send());
    let reader = s.host.create_token("reader", None, hoody_state::model::Rights::ReadOnly).unwrap().1;
    seen.expect("insufficient_permissions", &s.with_token(&reader, "POST", "/api/v1/projects").send());
    let path = format!("/api/v1/projects/{}/containers", s.project("closed"));
    seen.expect("host_network_denied", &s.call("POST", &path, r#"{"network":"host"}"#));
    seen.expect("trash_not_found", &s.call("POST", &format!("/api/v1/trash/{id}/recover"), ""));
    seen.expect("route_not_found", &s.get("/api/v1/nothing"));
    seen.expect("method_not_allowed", &s.call("DELETE", "/api/v1/projects", ""));
    seen.expect("validation_error", &s.call("POST", "/api/v1/projects", "{}"));
    seen.expect("invalid_id_format", &s.get("/api/v1/containers/x"));
    for query in ["page=0", "limit=0", "limit=101", "sort_order=up", "sort_by=nothing"] {
        seen.expect("invalid_page", &s.get(&format!("/api/v1/projects?{query}")));
    }
    for query in ["page=x", "limit=", "limit=1.5"] {
        seen.expect("validation_error", &s.get(&format!("/api/v1/containers?{query}")));
    }
    for query in ["limit=501", "limit=0", "offset=-1", "sort_by=id"] {
        seen.expect("invalid_page", &s.get(&format!("/api/v1/events?{query}")));
    }
    seen.expect("validation_error", &s.get("/api/v1/events?start_date=soon"));
    seen.expect("validation_error", &s.call("POST", "/api/v1/events/cleanup", r#"{"retention_days":366}"#));
    seen.expect("invalid_idempotency_key", &s.request("POST", "/api/v1/projects").header("Idempotency-Key", "a b").send());
    seen.expect("request_too_large", &s.request("POST", "/api/v1/projects").bytes(&vec![b' '; (1 << 20) + 1]).send());
    seen.expect("project_not_found", &s.get(&format!("/api/v1/projects/{id}")));
    seen.expect("container_not_found", &s.get(&format!("/api/v1/containers/{id}")));
    seen.expect("operation_not_found", &s.get("/api/v1/operations/65f0c0ffee00000000000000000000ff"));
    seen.expect("event_not_found", &s.get(&format!("/api/v1/events/{id}")));
    seen.expect("unknown_server", &s.get(&format!("/api/v1/servers/{id}")));
    seen.expect("image_not_found", &s.get("/api/v1/images/nope"));
}

fn things(s: &Server, seen: &mut Seen) {
    let project = s.project("one");
    seen.expect("duplicate_alias", &s.call("POST", "/api/v1/projects", r#"{"alias":"one"}"#));
    seen.expect("invalid_alias_format", &s.call("POST", "/api/v1/projects", r#"{"alias":""}"#));
    seen.expect("invalid_color_format", &s.call("POST", "/api/v1/projects", r#"{"alias":"x","color":"red"}"#));
    seen.expect("invalid_quota_value", &s.call("POST", "/api/v1/projects", r#"{"alias":"x","max_containers":-1}"#));
    let containers = format!("/api/v1/projects/{project}/containers");
    let id = s.container(&project, "box");
    seen.expect("container_name_in_use", &s.call("POST", &containers, r#"{"name":"box"}"#));
    seen.expect("invalid_container_name", &s.call("POST", &containers, r#"{"name":"a b c"}"#));
    seen.expect("invalid_container_name", &s.call("POST", &containers, r#"{"name":"ab"}"#));
    seen.expect("image_not_found", &s.call("POST", &containers, r#"{"container_image":"nope"}"#));
    seen.expect("unknown_server", &s.call("POST", &containers, r#"{"server_id":"65f0c0ffee000000000000ff"}"#));
    let one = format!("/api/v1/containers/{id}");
    for timeout in ["0", "601", "-1"] {
        seen.expect("validation_error", &s.call("POST", &format!("{one}/stop"), &format!(r#"{{"timeout":{timeout}}}"#)));
    }
    seen.expect("operation_state_conflict", &s.call("POST", &format!("{one}/start"), ""));
    seen.expect("validation_error", &s.call("POST", &format!("{one}/exec"), r#"{"command":[]}"#));
    seen.expect("validation_error", &s.call("POST", &format!("{one}/exec"), "{}"));
    seen.expect("validation_error", &s.get(&format!("{one}/logs?tail=-1")));
    seen.expect("validation_error", &s.call("PUT", &format!("{one}/env"), r#"{"A":1}"#));
    seen.expect("validation_error", &s.call("PUT", &format!("{one}/env/A"), &format!(r#"{{"value":"{}"}}"#, "x".repeat(32769))));
    seen.expect("environment_variable_not_found", &s.call("DELETE", &format!("{one}/env/NOPE"), ""));
    s.call("PUT", &one, r#"{"ssh_public_key":"ssh-ed25519 AAAA"}"#).data();
    seen.expect("ssh_public_key_in_use", &s.call("POST", &containers, r#"{"name":"second","ssh_public_key":"ssh-ed25519 AAAA"}"#));
    s.call("PUT", &format!("/api/v1/projects/{project}"), r#"{"alias":"one","max_containers":1}"#).data();
    seen.expect("project_container_limit", &s.call("POST", &containers, "{}"));
    let keyed = |alias: &str| s.request("POST", "/api/v1/projects").header("Idempotency-Key", "k").body(&format!(r#"{{"alias":"{alias}"}}"#)).send();
    keyed("k1").data();
    seen.expect("idempotency_key_reused", &keyed("k2"));
    seen.expect("reserved_image_name", &s.call("PUT", "/api/v1/images/public", ""));
    seen.expect("invalid_image_name", &s.call("PUT", "/api/v1/images/a/../b", ""));
}

fn snapshots(s: &Server, seen: &mut Seen) {
    let project = s.project("snapshots");
    let id = s.container(&project, "box");
    let base = format!("/api/v1/containers/{id}/snapshots");
    seen.expect("snapshot_not_found", &s.get(&format!("{base}/nope")));
    seen.expect("snapshot_not_found", &s.call("PATCH", &format!("{base}/a%2Fb"), ""));
    seen.expect("files_unsupported", &s.get(&format!("{base}/live/files/etc/hosts")));
    for expiry in ["0", "0.5", "3651", "-1", "1e9"] {
        seen.expect("invalid_expiry", &s.call("POST", &base, &format!(r#"{{"alias":"x","expiry":{expiry}}}"#)));
    }
    assert_eq!(s.get(&base).data()["snapshot_count"], 0, "nothing was made");
    seen.expect("invalid_alias", &s.call("POST", &base, &format!(r#"{{"alias":"{}"}}"#, "x".repeat(101))));
    s.call("POST", &base, r#"{"alias":"x"}"#).data();
    seen.expect("alias_in_use", &s.call("POST", &base, r#"{"alias":"x"}"#));
    seen.expect("validation_error", &s.call("PUT", &format!("{base}/x/alias"), "{}"));
    seen.expect("validation_error", &s.call("PUT", &format!("{base}/x/expiry"), r#"{"expires_at":"soon"}"#));
    s.call("PUT", &format!("{base}/x/pin"), "{}").data();
    seen.expect("snapshot_pinned", &s.call("DELETE", &format!("{base}/x"), ""));
    s.call("POST", &base, r#"{"alias":"nightly"}"#).data();
    s.call("PUT", &format!("{base}/nightly/alias"), r#"{"alias":"nightly-old"}"#).data();
    s.call("POST", &base, r#"{"alias":"nightly"}"#).data();
    seen.expect("snapshot_ambiguous", &s.call("DELETE", &format!("{base}/nightly"), ""));
}

/// Fails or holds up the next step of an operation.
#[derive(Clone, Default)]
pub struct Faults(Arc<(Mutex<Fault>, Condvar)>);

#[derive(Default)]
struct Fault {
    fail: Option<Code>,
    hold: Option<&'static str>,
    held: bool,
}

impl Faults {
    fn fail(&self, code: Code) {
        self.0.0.lock().unwrap().fail = Some(code);
    }

    pub fn hold(&self, operation: &'static str) {
        let mut f = self.0.0.lock().unwrap();
        (f.hold, f.held) = (Some(operation), false);
    }

    pub fn wait_held(&self) {
        let (f, timeout) = self.0.1.wait_timeout_while(self.0.0.lock().unwrap(), Duration::from_secs(10), |f| !f.held).unwrap();
        assert!(f.held && !timeout.timed_out());
    }

    pub fn release(&self) {
        self.0.0.lock().unwrap().hold = None;
        self.0.1.notify_all();
    }
}

impl StepHook for Faults {
    fn step(&self, operation: &str, step: &str) -> Result<()> {
        let mut f = self.0.0.lock().unwrap();
        if step == "intent" {
            return Ok(());
        }
        if let Some(code) = f.fail.take() {
            return Err(Error::new(code, "a test asked for it: secret-of-the-inside"));
        }
        if f.hold == Some(operation) {
            f.held = true;
            self.0.1.notify_all();
            drop(self.0.1.wait_while(f, |f| f.hold.is_some()).unwrap());
        }
        Ok(())
    }
}

pub struct World {
    pub s: Server,
    pub faults: Faults,
    pub store: Arc<MemoryStore>,
    freezer: Arc<MemoryFreezer>,
    runtime: Arc<MemoryRuntime>,
}

pub fn world(settings: Settings) -> World {
    world_with(settings, Limits::default())
}

pub fn world_with(settings: Settings, limits: Limits) -> World {
    let (faults, store, freezer, runtime) = (Faults::default(), Arc::new(MemoryStore::new()), Arc::new(MemoryFreezer::new()), Arc::new(MemoryRuntime::new()));
    let host =
        HostBuilder::new(None, store.clone(), freezer.clone(), runtime.clone()).unwrap().hook(Box::new(faults.clone())).settings(settings).open().unwrap();
    let s = Server::with(host, limits);
    let image = s.request("PUT", "/api/v1/images/debian/13").bytes(&crate::shapes::tar()).send();
    assert_eq!(image.status, 201, "{}", image.text());
    World { s, faults, store, freezer, runtime }
}

/// What goes wrong below is shown with its status, and nothing of the inside where it is our fault.
fn faults(seen: &mut Seen) {
    let w = world(Settings::default());
    let project = w.s.project("p");
    let id = w.s.container(&project, "box");
    let base = format!("/api/v1/containers/{id}");
    for code in [Code::Io, Code::Internal, Code::Interrupted, Code::CatalogCorrupt, Code::RuntimeNotFound, Code::RuntimeUnusable, Code::KillTimeout] {
        w.faults.fail(code);
        let a = w.s.call("POST", &format!("{base}/pause"), "");
        seen.expect(code.as_str(), &a);
        let v = a.json();
        assert_eq!((&v["data"]["error"], &v["data"]["operation"], &v["data"]["container_id"]), (&true.into(), &"pause".into(), &id.as_str().into()), "{v}");
        assert_eq!((&v["data"]["project_id"], &v["data"]["status"]), (&project.as_str().into(), &"running".into()), "{v}");
        assert_eq!(a.status == 500, !a.text().contains("secret-of-the-inside"), "{v}");
    }
    for code in [
        Code::ImageFormat,
        Code::ImageCorrupt,
        Code::ImagePathUnsafe,
        Code::ImageLinkUnsafe,
        Code::ImageEntryConflict,
        Code::ImageIdRange,
        Code::ImageXattr,
        Code::ImageNoRoot,
    ] {
        w.faults.fail(code);
        seen.expect(code.as_str(), &w.s.request("PUT", "/api/v1/images/bad").bytes(&crate::shapes::tar()).send());
    }
    w.faults.fail(Code::ImageTooLarge);
    seen.expect("image_too_large", &w.s.request("PUT", "/api/v1/images/bad").bytes(&crate::shapes::tar()).send());
    assert!(w.s.request("PUT", "/api/v1/images/bad").bytes(&[7; 2000]).send().code().starts_with("image_"), "for real");
    seen.expect("image_exists", &w.s.request("PUT", "/api/v1/images/debian/13").bytes(&crate::shapes::tar()).send());

    w.freezer.set_stuck(&id.parse().unwrap(), true);
    let a = w.s.call("POST", &format!("{base}/pause"), "");
    seen.expect("freeze_timeout", &a);
    assert_eq!(a.json()["error"], "CONTAINER_HOST_TIMEOUT");
    w.freezer.set_stuck(&id.parse().unwrap(), false);
    w.s.call("POST", &format!("{base}/pause"), "").data();
    seen.expect("container_paused", &w.s.call("POST", &format!("{base}/exec"), r#"{"command":["x"]}"#));
    w.s.request("POST", &format!("{base}/stop")).header("Prefer", "wait=20").send().data();
    seen.expect("container_not_running", &w.s.call("POST", &format!("{base}/exec"), r#"{"command":["x"]}"#));
    w.runtime.fail_next_start();
    let a = w.s.request("POST", &format!("{base}/start")).header("Prefer", "wait=20").send();
    seen.expect("start_failed", &a);
    assert_eq!((a.json()["error"].as_str(), a.json()["data"]["operation"].as_str()), (Some("CONTAINER_HOST_COMMAND_FAILED"), Some("start")), "{}", a.text());
    seen.expect("nothing_to_undo", &w.s.call("POST", &format!("{base}/undo"), ""));
    w.store.set_capacity(Bytes(0));
    seen.expect("pool_full", &w.s.call("POST", &format!("{base}/snapshots"), ""));
}

fn limits(seen: &mut Seen) {
    let w = world(Settings { max_snapshots: Some(1), max_containers: Some(1), ..Settings::default() });
    let project = w.s.project("p");
    let id = w.s.container(&project, "box");
    seen.expect("server_container_limit", &w.s.call("POST", &format!("/api/v1/projects/{project}/containers"), ""));
    let base = format!("/api/v1/containers/{id}/snapshots");
    w.s.call("POST", &base, "").data();
    let a = w.s.call("POST", &base, r#"{"alias":"more"}"#);
    seen.expect("container_snapshot_limit", &a);
    assert_eq!(a.json()["error"], "CONTAINER_SNAPSHOT_LIMIT");
    for key in ["field", "container_id", "server_id", "current_count", "limit"] {
        assert!(a.json()["data"].get(key).is_some(), "{key}");
    }
}

/// A change that is held up: others of the same thing are told to come again, reads and other things go on.
fn under_way(seen: &mut Seen) {
    let w = world(Settings::default());
    let project = w.s.project("p");
    let (id, other) = (w.s.container(&project, "box"), w.s.container(&project, "other"));
    let base = format!("/api/v1/containers/{id}");
    std::thread::scope(|scope| {
        w.faults.hold("snapshot.create");
        let first = scope.spawn(|| w.s.request("POST", &format!("{base}/snapshots")).header("Idempotency-Key", "k").send());
        w.faults.wait_held();
        let a = w.s.call("POST", &format!("{base}/snapshots"), "");
        seen.expect("snapshot_operation_in_progress", &a);
        assert_eq!((a.header("retry-after"), a.json()["error"].as_str()), (Some("1"), Some("SNAPSHOT_OPERATION_IN_PROGRESS")));
        let a = w.s.call("POST", &format!("{base}/pause"), "");
        seen.expect("operation_in_progress", &a);
        assert_eq!((a.header("retry-after"), a.json()["error"].as_str()), (Some("1"), Some("CONTAINER_OPERATION_IN_PROGRESS")));
        let again = w.s.request("POST", &format!("{base}/snapshots")).header("Idempotency-Key", "k").send();
        assert_eq!(again.header("retry-after"), Some("1"));
        if again.code() != "idempotency_in_flight" {
            assert_eq!(again.code(), "snapshot_operation_in_progress");
        } else {
            seen.expect("idempotency_in_flight", &again);
        }
        assert_eq!(w.s.get(&base).status, 200);
        w.s.call("POST", &format!("/api/v1/containers/{other}/pause"), "").data();
        w.faults.release();
        first.join().unwrap().data();
    });
    std::thread::scope(|scope| {
        w.faults.hold("image.import");
        let import = scope.spawn(|| w.s.request("PUT", "/api/v1/images/slow").bytes(&crate::shapes::tar()).send());
        w.faults.wait_held();
        let list = w.s.get("/api/v1/operations").data();
        let operation = list["operations"].as_array().unwrap().iter().find(|o| o["status"] == "running").unwrap()["id"].as_str().unwrap().to_owned();
        let path = format!("/api/v1/operations/{operation}");
        w.s.call("DELETE", &path, "").data();
        w.faults.release();
        seen.expect("operation_cancelled", &import.join().unwrap());
        assert_eq!(w.s.get(&path).data()["status"], "cancelled");
        seen.expect("operation_finished", &w.s.call("DELETE", &path, ""));
    });
    std::thread::scope(|scope| {
        w.faults.hold("snapshot.create");
        let first = scope.spawn(|| w.s.call("POST", &format!("{base}/snapshots"), ""));
        w.faults.wait_held();
        let list = w.s.get("/api/v1/operations").data();
        let operation = list["operations"].as_array().unwrap().iter().find(|o| o["status"] == "running").unwrap()["id"].as_str().unwrap().to_owned();
        seen.expect("operation_not_cancellable", &w.s.call("DELETE", &format!("/api/v1/operations/{operation}"), ""));
        w.faults.release();
        first.join().unwrap().data();
    });
}
