//! `config.json`: the configuration for the OCI runtime. No I/O except for reading the flags of one mount.

use super::built::built;
use super::seccomp;
use crate::error::{Code, Error, Result};
use crate::model::mount::{Mount, MountSource, RECEIVED};
use crate::runtime::{ExecSpec, Network, RunSpec};
use oci_spec::runtime::{
    Capability, Hook, HookBuilder, Hooks, HooksBuilder, Linux, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxDeviceCgroupBuilder, LinuxIdMappingBuilder,
    LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, LinuxResourcesBuilder, Mount as OciMount, MountBuilder, PosixRlimitBuilder, PosixRlimitType,
    Process, ProcessBuilder, RootBuilder, Spec, SpecBuilder, UserBuilder,
};
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The capabilities of Docker's and Podman's containers, inside the container's user namespace.
const CAPABILITIES: [Capability; 14] = [
    Capability::AuditWrite,
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Mknod,
    Capability::NetBindService,
    Capability::NetRaw,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysChroot,
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

/// The facts about the host that go into a spec.
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

/// What the runtime reads.
pub(super) fn json(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| Error::internal(format!("the configuration of the OCI runtime cannot be written: {e}")))
}

/// The spec of a run. Errors: `invalid_command`, `invalid_environment`, `invalid_cwd`, `invalid_root`.
pub(crate) fn config(spec: &RunSpec, host: &Host<'_>) -> Result<Spec> {
    let root = spec.root.as_deref().and_then(Path::to_str).filter(|r| r.starts_with('/'));
    let root = root.ok_or_else(|| Error::new(Code::InvalidRoot, format!("container {}: its root must be an absolute path in UTF-8", spec.container)))?;
    let mut process = process(&spec.command, env(&spec.env, &spec.hostname), &spec.cwd)?;
    if let Some((soft, hard)) = host.nofile {
        let open_files = PosixRlimitBuilder::default().typ(PosixRlimitType::RlimitNofile).soft(soft).hard(hard);
        process.set_rlimits(Some(vec![built(open_files.build())?]));
    }
    // A server with a protected score must not pass it on.
    process.set_oom_score_adj(Some(0));
    let mut config = built(
        SpecBuilder::default()
            .version("1.0.2")
            .process(process)
            .root(built(RootBuilder::default().path(root).readonly(false).build())?)
            .hostname(&spec.hostname)
            .mounts(mounts(spec, host)?)
            .linux(linux(spec, host)?)
            .hooks(hooks(spec, host)?)
            .build(),
    )?;
    config.set_annotations(None);
    Ok(config)
}

fn linux(spec: &RunSpec, host: &Host<'_>) -> Result<Linux> {
    let ids = vec![built(LinuxIdMappingBuilder::default().container_id(0u32).host_id(host.id_base).size(host.id_count).build())?];
    let no_devices = built(LinuxDeviceCgroupBuilder::default().allow(false).access("rwm").build())?;
    built(
        LinuxBuilder::default()
            .namespaces(namespaces(spec, host)?)
            .uid_mappings(ids.clone())
            .gid_mappings(ids)
            .cgroups_path(&host.cgroups_path)
            // Mounts made on the host under the root, such as shares of other containers, appear in a running container.
            .rootfs_propagation("rslave")
            .resources(built(LinuxResourcesBuilder::default().devices(vec![no_devices]).build())?)
            .masked_paths(MASKED.map(str::to_owned))
            .readonly_paths(READ_ONLY.map(str::to_owned))
            .seccomp(seccomp::profile()?)
            .build(),
    )
}

fn namespaces(spec: &RunSpec, host: &Host<'_>) -> Result<Vec<LinuxNamespace>> {
    use LinuxNamespaceType::{Cgroup, Ipc, Mount, Network as Net, Pid, User, Uts};
    let own = [Mount, Pid, Ipc, Uts, Cgroup].map(|kind| LinuxNamespaceBuilder::default().typ(kind));
    let user = LinuxNamespaceBuilder::default().typ(User).path(host.userns);
    let network = (spec.network == Network::None).then(|| LinuxNamespaceBuilder::default().typ(Net));
    own.into_iter().chain([user]).chain(network).map(|n| built(n.build())).collect()
}

/// With something to share, the runtime stops between making the mounts and starting init: it writes its state to one pipe and continues when a line
/// arrives on the other. What is mounted in between can be unmounted again; what came with the namespace could not, because the kernel locks it.
fn hooks(spec: &RunSpec, host: &Host<'_>) -> Result<Hooks> {
    if spec.shares.as_ref().is_none_or(Vec::is_empty) {
        return Ok(Hooks::default());
    }
    built(HooksBuilder::default().create_runtime(vec![wait_for_shares(host)?]).build())
}

fn wait_for_shares(host: &Host<'_>) -> Result<Hook> {
    let at = |name: &str| host.bundle.join(name).to_string_lossy().into_owned();
    let args = ["sh".to_owned(), "-c".to_owned(), "cat >\"$0\"; read line <\"$1\"".to_owned(), at(STATE_PIPE), at(GO_PIPE)];
    built(HookBuilder::default().path("/bin/sh").args(args).env([format!("PATH={PATH}")]).timeout(30).build())
}

/// The process of an exec. Errors: `invalid_command`, `invalid_environment`, `invalid_cwd`.
pub(crate) fn exec_process(spec: &ExecSpec) -> Result<Process> {
    process(&spec.command, env(&spec.env, ""), spec.cwd.as_deref().unwrap_or("/"))
}

fn process(command: &[String], env: BTreeMap<String, String>, cwd: &str) -> Result<Process> {
    if command.first().is_none_or(String::is_empty) || command.iter().any(|a| a.contains('\0')) {
        return Err(Error::new(Code::InvalidCommand, format!("{command:?} is not a command: it needs a program, and no argument may contain NUL")));
    }
    if let Some((k, _)) = env.iter().find(|(k, v)| k.is_empty() || k.contains(['=', '\0']) || v.contains('\0')) {
        return Err(Error::new(Code::InvalidEnvironment, format!("{k:?} cannot be set: a name must not be empty or contain = or NUL, a value no NUL")));
    }
    let cwd = if cwd.is_empty() { "/" } else { cwd };
    if !cwd.starts_with('/') || cwd.contains('\0') {
        return Err(Error::new(Code::InvalidCwd, format!("{cwd:?} is not a working directory: it must be an absolute path")));
    }
    let capabilities: HashSet<Capability> = CAPABILITIES.into();
    let capabilities = LinuxCapabilitiesBuilder::default().bounding(capabilities.clone()).effective(capabilities.clone()).permitted(capabilities);
    let mut capabilities = built(capabilities.build())?;
    capabilities.set_inheritable(None).set_ambient(None);
    let mut process = built(
        ProcessBuilder::default()
            .terminal(false)
            .user(built(UserBuilder::default().uid(0u32).gid(0u32).build())?)
            .args(command)
            .env(env.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>())
            .cwd(cwd)
            .capabilities(capabilities)
            // As in Podman: programs with the set-user-id bit work, and reach no further than the user namespace.
            .no_new_privileges(false)
            .build(),
    )?;
    process.set_rlimits(None);
    Ok(process)
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

/// The source of a bind mount; `None` for a mount without files.
fn source_of(mount: &Mount, bundle: &Path, i: usize) -> Option<PathBuf> {
    match &mount.source {
        MountSource::Path(p) => Some(p.clone()),
        MountSource::Tree(t) => t.descriptor().map(|_| tree_at(bundle, i)),
    }
}

fn mount(to: impl AsRef<Path>, kind: &str, from: impl AsRef<Path>, options: &[&str]) -> Result<OciMount> {
    let options: Vec<String> = options.iter().map(|o| (*o).to_owned()).collect();
    built(MountBuilder::default().destination(to.as_ref()).typ(kind).source(from.as_ref()).options(options).build())
}

fn mounts(spec: &RunSpec, host: &Host<'_>) -> Result<Vec<OciMount>> {
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"])?,
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "noexec", "strictatime", "mode=755", "size=65536k"])?,
        mount("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"])?,
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"])?,
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"])?,
    ];
    mounts.push(match spec.network {
        Network::None => mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"])?,
        // sysfs belongs to a network namespace, and this user namespace may not mount that of the host: its tree is bound instead.
        Network::Host => mount("/sys", "bind", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro"])?,
    });
    mounts.push(mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"])?);
    if let (Network::Host, Some((path, flags))) = (spec.network, &host.resolv_conf) {
        let options: Vec<&str> = ["bind", "ro"].into_iter().chain(flags.iter().copied()).collect();
        mounts.push(mount("/etc/resolv.conf", "bind", path, &options)?);
    }
    for (i, m) in spec.mounts.iter().enumerate() {
        // It keeps the flags of its source. A tree is read-only already: a remount would have to repeat all its flags, which the user namespace locks.
        let named = m.source.path().is_some();
        let options: &[&str] = if m.read_only && named { &["bind", "ro"] } else { &["bind"] };
        if let Some(from) = source_of(m, host.bundle, i) {
            mounts.push(mount(&m.target, "bind", from, options)?);
        }
    }
    if spec.shares.is_some() {
        mounts.push(mount(RECEIVED, "bind", host.hub, &["rbind", "rshared"])?);
    }
    Ok(mounts)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::id::{ContainerId, RunId};
    use crate::runtime::Limits;
    use serde_json::{Value, json};

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
        let c = serde_json::to_value(config(&spec(), &host()).unwrap()).unwrap();
        assert_eq!(c["linux"]["namespaces"].as_array().unwrap().len(), 7);
        assert_eq!(c["linux"]["uidMappings"][0], json!({"containerID": 0, "hostID": 100_000, "size": 65_536}));
        assert_eq!(c["process"]["cwd"], "/");
        assert_eq!(c["process"]["env"], json!(["HOME=/root", "HOSTNAME=box", format!("PATH={PATH}"), "TERM=dumb"]));
        assert_eq!(c["process"]["rlimits"][0]["soft"], 1024);
    }

    #[test]
    fn the_hosts_network_brings_its_resolver_and_binds_sys() {
        let c = serde_json::to_value(config(&RunSpec { network: Network::Host, ..spec() }, &host()).unwrap()).unwrap();
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

    /// Compares a configuration with its file in `golden/`. Capabilities are a set: they are sorted. The filter of system calls has tests of its own.
    fn assert_golden(name: &str, config: impl serde::Serialize) {
        let mut config = serde_json::to_value(config).unwrap();
        if let Some(linux) = config.get_mut("linux").and_then(Value::as_object_mut) {
            linux.remove("seccomp").unwrap();
        }
        let process = if config.get("process").is_some() { &mut config["process"] } else { &mut config };
        for set in process["capabilities"].as_object_mut().unwrap().values_mut() {
            set.as_array_mut().unwrap().sort_by_key(Value::to_string);
        }
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/runtime/oci/golden").join(name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, serde_json::to_string_pretty(&config).unwrap() + "\n").unwrap();
        }
        let golden: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(config, golden, "{}: if the change is wanted, run the test with UPDATE_GOLDEN=1", path.display());
    }

    #[test]
    fn the_runtime_gets_the_same_configuration_as_before() {
        let bare = Host { nofile: None, ..host() };
        assert_golden("isolated.json", config(&spec(), &host()).unwrap());
        assert_golden("host-network.json", config(&RunSpec { network: Network::Host, cwd: "/srv".into(), ..spec() }, &bare).unwrap());
        let at = |target: &str| Mount { source: MountSource::Path("/run/databases/project".into()), target: target.into(), read_only: false };
        let shared = RunSpec { mounts: vec![at("/hoody/databases")], shares: Some(vec![at("docs")]), ..spec() };
        assert_golden("shared.json", config(&shared, &host()).unwrap());
        assert_golden("share-directory.json", config(&RunSpec { shares: Some(Vec::new()), ..shared }, &host()).unwrap());
    }

    #[test]
    fn a_command_in_a_container_gets_the_same_process_as_before() {
        let exec = ExecSpec {
            command: vec!["ls".into(), "-l".into()],
            env: BTreeMap::from([("A".into(), "b".into())]),
            cwd: Some("/tmp".into()),
            ..ExecSpec::default()
        };
        assert_golden("exec.json", exec_process(&exec).unwrap());
    }
}
