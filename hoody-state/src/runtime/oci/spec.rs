//! `config.json`: what the OCI runtime is told. Pure but for the flags of one mount.

use super::seccomp;
use crate::error::{Code, Error, Result};
use crate::model::mount::{Mount, MountSource, RECEIVED};
use crate::runtime::{ExecSpec, Network, RunSpec};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The capabilities of Docker's and Podman's containers, inside the container's user namespace.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Names of the two pipes in a bundle.
pub(super) const STATE_PIPE: &str = "state.pipe";
pub(super) const GO_PIPE: &str = "go.pipe";

/// What of the host goes into a spec.
pub(crate) struct Host<'a> {
    pub id_base: u32,
    pub id_count: u32,
    pub cgroups_path: String,
    /// Open files that a process may have, soft and hard. `None`: what the runtime was started with, since it cannot set this.
    pub nofile: Option<(u64, u64)>,
    /// The host's `resolv.conf` (no symbolic link) and the mount options a bind of it must keep.
    pub resolv_conf: Option<(&'a Path, Vec<&'static str>)>,
    /// Where what is shared with the container is, in the mount namespace that the runtime is started in.
    pub hub: &'a Path,
    /// Where the container's user namespace is mounted, in the mount namespace that the runtime is started in.
    pub userns: &'a Path,
    /// The directory of this run.
    pub bundle: &'a Path,
}

/// The spec of a run. Errors: `invalid_command`, `invalid_environment`, `invalid_cwd`, `invalid_root`.
pub(crate) fn config(spec: &RunSpec, host: &Host<'_>) -> Result<Value> {
    let root = spec.root.as_deref().and_then(Path::to_str).filter(|r| r.starts_with('/'));
    let root = root.ok_or_else(|| Error::new(Code::InvalidRoot, format!("container {}: its root must be an absolute path in UTF-8", spec.container)))?;
    let mut process = process(&spec.command, env(&spec.env, &spec.hostname), &spec.cwd)?;
    if let Some((soft, hard)) = host.nofile {
        process["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": soft, "hard": hard}]);
    }
    // A server with a protected score must not pass it on.
    process["oomScoreAdj"] = json!(0);
    let ids = json!([{"containerID": 0, "hostID": host.id_base, "size": host.id_count}]);
    let mut namespaces: Vec<Value> = ["mount", "pid", "ipc", "uts", "cgroup"].iter().map(|kind| json!({"type": kind})).collect();
    namespaces.push(json!({"type": "user", "path": host.userns.to_string_lossy()}));
    if spec.network == Network::None {
        namespaces.push(json!({"type": "network"}));
    }
    Ok(json!({
        "ociVersion": "1.0.2",
        "process": process,
        "root": {"path": root, "readonly": false},
        "hostname": spec.hostname,
        "mounts": mounts(spec, host),
        "linux": {
            "namespaces": namespaces,
            "uidMappings": ids,
            "gidMappings": ids,
            "cgroupsPath": host.cgroups_path,
            // Mounts made on the host under the root, shares of other containers say, appear in a running container.
            "rootfsPropagation": "rslave",
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
            "seccomp": seccomp::profile(),
        },
        "hooks": hooks(spec, host),
    }))
}

/// With something to share, the runtime stops between making the mounts and starting init: it hands its state to one pipe and goes on when a line comes
/// by the other. What is mounted in between can be taken off again; what came with the namespace could not (the kernel locks it).
fn hooks(spec: &RunSpec, host: &Host<'_>) -> Value {
    if spec.shares.as_ref().is_none_or(Vec::is_empty) {
        return json!({});
    }
    let at = |name: &str| host.bundle.join(name).to_string_lossy().into_owned();
    json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", "cat >\"$0\"; read line <\"$1\"", at(STATE_PIPE), at(GO_PIPE)], "env": [format!("PATH={PATH}")], "timeout": 30}]})
}

/// The process of an exec. Errors: `invalid_command`, `invalid_environment`, `invalid_cwd`.
pub(crate) fn exec_process(spec: &ExecSpec) -> Result<Value> {
    process(&spec.command, env(&spec.env, ""), spec.cwd.as_deref().unwrap_or("/"))
}

fn process(command: &[String], env: BTreeMap<String, String>, cwd: &str) -> Result<Value> {
    if command.first().is_none_or(String::is_empty) || command.iter().any(|a| a.contains('\0')) {
        return Err(Error::new(Code::InvalidCommand, format!("{command:?} is no command: it needs a program, and no argument may hold a NUL")));
    }
    if let Some((k, _)) = env.iter().find(|(k, v)| k.is_empty() || k.contains(['=', '\0']) || v.contains('\0')) {
        return Err(Error::new(Code::InvalidEnvironment, format!("{k:?} cannot be set: a name must not be empty nor hold = or NUL, a value no NUL")));
    }
    let cwd = if cwd.is_empty() { "/" } else { cwd };
    if !cwd.starts_with('/') || cwd.contains('\0') {
        return Err(Error::new(Code::InvalidCwd, format!("{cwd:?} is no working directory: it must be an absolute path")));
    }
    Ok(json!({
        "terminal": false,
        "user": {"uid": 0, "gid": 0},
        "args": command,
        "env": env.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>(),
        "cwd": cwd,
        "capabilities": {"bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES},
        // As Podman: programs with the set-user-id bit work, and reach no further than the user namespace.
        "noNewPrivileges": false,
    }))
}

fn env(given: &BTreeMap<String, String>, hostname: &str) -> BTreeMap<String, String> {
    let mut env = given.clone();
    for (k, v) in [("PATH", PATH), ("HOME", "/root"), ("TERM", "xterm"), ("HOSTNAME", hostname)] {
        if !v.is_empty() {
            env.entry(k.to_owned()).or_insert_with(|| v.to_owned());
        }
    }
    env
}

/// Where the runtime finds the `i`th mount of a run that has no name of its own, in the mount namespace that the runtime is started in.
pub(super) fn tree_at(bundle: &Path, i: usize) -> PathBuf {
    bundle.join("mounts").join(i.to_string())
}

/// What the runtime binds; `None` for what has no files.
fn source_of(mount: &Mount, bundle: &Path, i: usize) -> Option<PathBuf> {
    match &mount.source {
        MountSource::Path(p) => Some(p.clone()),
        MountSource::Tree(t) => t.descriptor().map(|_| tree_at(bundle, i)),
    }
}

fn mounts(spec: &RunSpec, host: &Host<'_>) -> Vec<Value> {
    let network = spec.network;
    let mount = |to: &str, kind: &str, from: &str, options: &[&str]| json!({"destination": to, "type": kind, "source": from, "options": options});
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "noexec", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ];
    match network {
        Network::None => mounts.push(mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"])),
        // sysfs belongs to a network namespace, and the host's is not this user namespace's to mount: its tree is bound.
        Network::Host => mounts.push(mount("/sys", "bind", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro"])),
    }
    mounts.push(mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]));
    if let (Network::Host, Some((path, flags))) = (network, &host.resolv_conf) {
        let options: Vec<&str> = ["bind", "ro"].into_iter().chain(flags.iter().copied()).collect();
        mounts.push(mount("/etc/resolv.conf", "bind", &path.to_string_lossy(), &options));
    }
    // They keep the flags of what they are bound from.
    for (i, m) in spec.mounts.iter().enumerate() {
        let options: &[&str] = if m.read_only { &["bind", "ro"] } else { &["bind"] };
        mounts.extend(source_of(m, host.bundle, i).map(|from| mount(&m.target, "bind", &from.to_string_lossy(), options)));
    }
    if spec.shares.is_some() {
        mounts.push(mount(RECEIVED, "bind", &host.hub.to_string_lossy(), &["rbind", "rshared"]));
    }
    mounts
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::id::{ContainerId, RunId};
    use crate::runtime::Limits;

    fn spec() -> RunSpec {
        RunSpec {
            container: ContainerId::generate(),
            run: RunId::generate(),
            root: Some("/pool/live".into()),
            command: vec!["sleep".into(), "1".into()],
            env: BTreeMap::from([("TERM".into(), "dumb".into())]),
            cwd: String::new(),
            hostname: "box".into(),
            network: Network::None,
            limits: Limits::default(),
            mounts: Vec::new(),
            shares: None,
        }
    }

    fn host() -> Host<'static> {
        let resolv_conf = Some((Path::new("/run/resolv.conf"), vec!["nosuid"]));
        Host {
            id_base: 100_000,
            id_count: 65_536,
            cgroups_path: "/p/c/run".into(),
            nofile: Some((1024, 4096)),
            resolv_conf,
            hub: Path::new("/hub"),
            userns: Path::new("/userns"),
            bundle: Path::new("/bundle"),
        }
    }

    #[test]
    fn a_container_has_every_namespace_and_its_ids() {
        let c = config(&spec(), &host()).unwrap();
        assert_eq!(c["linux"]["namespaces"].as_array().unwrap().len(), 7);
        assert_eq!(c["linux"]["uidMappings"][0], json!({"containerID": 0, "hostID": 100_000, "size": 65_536}));
        assert_eq!(c["process"]["cwd"], "/");
        assert_eq!(c["process"]["env"], json!(["HOME=/root", "HOSTNAME=box", format!("PATH={PATH}"), "TERM=dumb"]));
        assert_eq!(c["process"]["rlimits"][0]["soft"], 1024);
    }

    #[test]
    fn the_hosts_network_brings_its_resolver_and_binds_sys() {
        let c = config(&RunSpec { network: Network::Host, ..spec() }, &host()).unwrap();
        assert_eq!(c["linux"]["namespaces"].as_array().unwrap().len(), 6);
        let mounts = c["mounts"].as_array().unwrap();
        assert!(mounts.iter().any(|m| m["destination"] == "/sys" && m["type"] == "bind"));
        assert!(mounts.iter().any(|m| m["destination"] == "/etc/resolv.conf" && m["options"] == json!(["bind", "ro", "nosuid"])));
    }

    #[test]
    fn what_the_kernel_would_not_take_is_refused_before() {
        let code = |s: RunSpec| config(&s, &host()).unwrap_err().code();
        assert_eq!(code(RunSpec { command: vec![], ..spec() }), Code::InvalidCommand);
        assert_eq!(code(RunSpec { command: vec!["a\0b".into()], ..spec() }), Code::InvalidCommand);
        assert_eq!(code(RunSpec { env: BTreeMap::from([("A=B".into(), String::new())]), ..spec() }), Code::InvalidEnvironment);
        assert_eq!(code(RunSpec { cwd: "tmp".into(), ..spec() }), Code::InvalidCwd);
        assert_eq!(code(RunSpec { root: None, ..spec() }), Code::InvalidRoot);
    }
}
