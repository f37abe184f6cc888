use super::run::Network;
use super::space::DiskUse;
use crate::clock::rfc3339;
use crate::id::{ContainerId, LogId, OperationId, ProjectId, ServerId};
use crate::name::{Alias, ContainerName, ProjectAlias, SnapshotName};
use crate::units::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a container is doing. The published words, no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Its volume is being made, or it boots for the first time.
    Creating,
    /// Init runs.
    Running,
    /// Frozen, memory kept.
    Paused,
    /// No process.
    Stopped,
    /// It could not be started; its volume is whole.
    Failed,
    /// Gone.
    Deleted,
    /// Being copied into.
    Copying,
    /// On its way out.
    Deleting,
    /// Published, never used here.
    Claiming,
}

impl Status {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
            Status::Failed => "failed",
            Status::Deleted => "deleted",
            Status::Copying => "copying",
            Status::Deleting => "deleting",
            Status::Claiming => "claiming",
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How far a RAM disk reaches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum RamdiskScope {
    /// This container alone.
    #[default]
    Container,
    /// A second one for the whole project.
    Project,
}

/// Where a container's databases live.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum DatabaseScope {
    /// With the project, shared by its containers on this host.
    #[default]
    Project,
    /// In the container's own volume.
    Private,
}

/// What a container's root file system is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Filesystem {
    /// A BTRFS subvolume.
    #[default]
    Btrfs,
    /// An ext4 image on BTRFS. Not available yet.
    Ext4,
}

/// A container, as the wire shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Container {
    /// Its id.
    pub id: ContainerId,
    /// Its project.
    pub project_id: ProjectId,
    /// The project's name.
    pub project_alias: ProjectAlias,
    /// This server.
    pub server_id: ServerId,
    /// This server's name.
    pub server_name: String,
    /// Its name, unique in the project.
    pub name: ContainerName,
    /// `#RRGGBB`.
    pub color: String,
    /// The image it was made from.
    pub container_image: String,
    /// What it is doing.
    pub status: Status,
    /// Why it failed, while `status` is `failed`.
    pub status_message: Option<String>,
    /// Accepted, of no meaning here.
    pub ai: bool,
    /// Always false: this server has no kit.
    pub hoody_kit: bool,
    /// Always false.
    pub dev_kit: bool,
    /// Always false.
    pub kvm: bool,
    /// Started at host boot.
    pub autostart: bool,
    /// Has a RAM disk.
    pub ramdisk: bool,
    /// How far it reaches.
    pub ramdisk_scope: RamdiskScope,
    /// Environment of init, from the next start on.
    pub environment_vars: BTreeMap<String, String>,
    /// Free text.
    pub comment: Option<String>,
    /// Free text, unique on the server.
    pub ssh_public_key: Option<String>,
    /// The container this is a copy of.
    pub source_container_id: Option<ContainerId>,
    /// How many snapshots it has.
    pub snapshot_count: u64,
    /// The last one restored.
    pub last_used_snapshot: Option<SnapshotName>,
    /// Always empty.
    pub realm_ids: Vec<String>,
    /// argv of init.
    pub command: Vec<String>,
    /// Processors it may use.
    pub cpu: Option<f64>,
    /// MiB of memory it may use.
    pub memory: Option<u64>,
    /// Bytes that its volumes and snapshots may hold; null: no limit.
    #[serde(default)]
    pub disk: Option<Bytes>,
    /// Where its databases live.
    pub databases: DatabaseScope,
    /// What its root is.
    pub filesystem: Filesystem,
    /// Its network.
    pub network: Network,
    /// Whether it has the socket `/run/hoody.sock`, by which its root uses a part of the API for this container.
    #[serde(default)]
    pub api_socket: bool,
    /// Of a copy that is a machine of its own: what was changed for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<super::ContainerIdentity>,
    /// The operation under way, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<OperationId>,
    /// When it was made.
    #[serde(with = "rfc3339")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created_at: Timestamp,
    /// When it was last changed.
    #[serde(with = "rfc3339")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub updated_at: Timestamp,
}

/// A container with what takes a look at its volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ContainerDetail {
    /// The container.
    #[serde(flatten)]
    pub container: Container,
    /// Where its present state comes from.
    pub lineage: Lineage,
    /// What its live volume holds.
    pub usage: Usage,
    /// What is mounted in it, beside its root.
    pub mounts: Vec<Mount>,
}

/// Where a container's present state comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Lineage {
    /// The snapshot of its own that the live state grew from: the last one taken or restored.
    pub snapshot: Option<SnapshotName>,
    /// The image it was made from.
    pub image: String,
    /// The container it was copied from.
    pub source_container_id: Option<ContainerId>,
    /// Since when the live state grows from there.
    #[serde(with = "rfc3339")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub since: Timestamp,
}

/// Bytes of file data of a live volume.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Usage {
    /// All it refers to.
    pub referenced: Bytes,
    /// Written since the snapshot or image it grew from: what deleting the container without its snapshots would free.
    pub exclusive: Bytes,
    /// The rest.
    pub shared: Bytes,
}

/// The same, with the snapshots: what the whole container keeps on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UsageReport {
    /// Of the live volume.
    #[serde(flatten)]
    pub live: Usage,
    /// What each snapshot added.
    pub snapshots: Vec<SnapshotUsage>,
    /// All of them together.
    #[serde(default)]
    pub all_snapshots: AllSnapshotsUsage,
    /// `exclusive` and all snapshots: the data this container has on disk beside its image, each block once.
    pub total: Bytes,
    /// What counts to its disk limit, and the limit. Null: this pool does not count.
    #[serde(default)]
    pub disk: Option<DiskUse>,
    /// How many subvolumes were made inside its live volume.
    #[serde(default)]
    pub nested_volumes: u32,
    /// With more of them than this, no snapshots and copies are made.
    #[serde(default)]
    pub max_nested_volumes: u32,
}

/// What a snapshot added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SnapshotUsage {
    /// Which.
    pub name: SnapshotName,
    /// Its alias, if it has one.
    #[serde(default)]
    pub alias: Option<Alias>,
    /// Bytes of file data written since the one before.
    pub size: Bytes,
    /// Bytes of file data on the disk that come back when it is deleted. Null: not known (yet).
    #[serde(default)]
    pub frees_bytes: Option<Bytes>,
}

/// All snapshots of a container together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AllSnapshotsUsage {
    /// How many there are.
    pub count: usize,
    /// The sum of their sizes.
    pub size: Bytes,
    /// Bytes of file data on the disk that come back when all of them are deleted. More than the sum of what each frees alone: what two snapshots share comes back only when
    /// both are gone. Null: not known (yet).
    pub frees_bytes: Option<Bytes>,
}

/// Something mounted in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Mount {
    /// Where.
    pub path: String,
    /// `storage`, `databases`, `ramdisk`, `snapshots`, `api_socket`, `share`.
    pub kind: String,
}

/// A container to be made. Fields of no meaning here are ignored.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewContainer {
    /// This host, if given.
    pub server_id: Option<String>,
    /// 3–100 of `[A-Za-z0-9_-]`; absent or `rand`: made up.
    pub name: Option<String>,
    /// Absent: the default image.
    pub container_image: Option<String>,
    /// At most 256 keys `[A-Za-z_][A-Za-z0-9_]*` of at most 128, values of 1–4096.
    pub environment_vars: Option<BTreeMap<String, String>>,
    /// At most 16,000 characters.
    pub comment: Option<String>,
    /// `#RRGGBB`.
    pub color: Option<String>,
    /// Unique on the server.
    pub ssh_public_key: Option<String>,
    /// Accepted.
    pub ai: Option<bool>,
    /// Start at host boot; default true.
    pub autostart: Option<bool>,
    /// Default true.
    pub ramdisk: Option<bool>,
    /// Default `container`.
    pub ramdisk_scope: Option<RamdiskScope>,
    /// argv of init; default: the image's `/sbin/init`, `/init` or a shell that waits.
    pub command: Option<Vec<String>>,
    /// Processors.
    pub cpu: Option<f64>,
    /// MiB.
    pub memory: Option<u64>,
    /// Bytes that its volumes and snapshots may hold, as a number or as `"20G"`; null: no limit. Absent: the server's default.
    #[serde(default, deserialize_with = "super::present_size", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub disk: Option<Option<Bytes>>,
    /// Default `project`.
    pub databases: Option<DatabaseScope>,
    /// Default `btrfs`.
    pub filesystem: Option<Filesystem>,
    /// Default `none`.
    pub network: Option<Network>,
    /// Whether it gets the socket `/run/hoody.sock`, by which its root uses a part of the API for this container. Default false.
    pub api_socket: Option<bool>,
}

/// What to change of a container; absent is unchanged.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ContainerUpdate {
    /// 1–100 of `[A-Za-z0-9_-]`.
    pub name: Option<String>,
    /// `#RRGGBB`.
    pub color: Option<String>,
    /// Accepted.
    pub ai: Option<bool>,
    /// Start at host boot.
    pub autostart: Option<bool>,
    /// From the next start on.
    pub ramdisk: Option<bool>,
    /// From the next start on.
    pub ramdisk_scope: Option<RamdiskScope>,
    /// Replaces all.
    pub environment_vars: Option<BTreeMap<String, String>>,
    /// Whether it has the socket `/run/hoody.sock`. True: from the next start on; false: it is closed at once.
    pub api_socket: Option<bool>,
    /// Bytes that its volumes and snapshots may hold, as a number or as `"20G"`; null: no limit. At once.
    #[serde(default, deserialize_with = "super::present_size", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub disk: Option<Option<Bytes>>,
    /// Null clears.
    #[serde(default, deserialize_with = "super::present")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub ssh_public_key: Option<Option<String>>,
    /// At most 16,000 characters; null clears.
    #[serde(default, deserialize_with = "super::present")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub comment: Option<Option<String>>,
}

/// A lifecycle verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// Boot.
    Start,
    /// TERM, wait, kill.
    Stop,
    /// Kill.
    ForceStop,
    /// Stop and boot.
    Restart,
    /// Freeze.
    Pause,
    /// Thaw.
    Resume,
}

impl Verb {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Start => "start",
            Verb::Stop => "stop",
            Verb::ForceStop => "force-stop",
            Verb::Restart => "restart",
            Verb::Pause => "pause",
            Verb::Resume => "resume",
        }
    }
}

/// The answer to a lifecycle verb.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LifecycleAnswer {
    /// False here; true in the `data` of an error.
    pub error: bool,
    /// The verb.
    pub operation: Verb,
    /// Which.
    pub container_id: ContainerId,
    /// Its project.
    pub project_id: ProjectId,
    /// For people.
    pub message: String,
    /// The state at the answer.
    pub status: Status,
    /// The operation, which may still be under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<OperationId>,
}

/// A row of a container's status log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StatusLog {
    /// Its id.
    pub id: LogId,
    /// Of which container.
    pub container_id: ContainerId,
    /// Before; null at the beginning.
    pub from_status: Option<Status>,
    /// After.
    pub to_status: Status,
    /// When.
    #[serde(with = "rfc3339")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub transition_time: Timestamp,
    /// How long the state before had lasted.
    pub duration_ms: Option<u64>,
    /// `user`, `system`, `restore`, `init` …
    pub triggered_by: String,
    /// Such as the exit code.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub metadata: Option<serde_json::Value>,
}
