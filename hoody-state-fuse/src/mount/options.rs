//! Settings of a mount.

use crate::locks::Limits;
use std::path::PathBuf;

/// Settings of a mount.
#[derive(Debug, Clone)]
pub struct MountOptions {
    /// Let the kernel read and write the backing files itself, if it can.
    pub passthrough: bool,
    /// Threads that take requests. One is fastest: each hand-over of a lock stays on one thread, and no sync runs on it. With more, locks are granted even
    /// while a slow disk delays the creation of a file.
    pub event_loops: usize,
    /// Give each connection of a process its own node, so that threads of one process wait for each other too. Needs passthrough.
    pub node_per_connection: bool,
    /// Keep processors awake while there are many requests (see the module `cpu_latency`). A transaction then takes a quarter to two thirds of the time.
    pub stay_awake: bool,
    /// How many nodes are kept; each has a descriptor. With more, unused names are forgotten. Default: half of the limit of descriptors.
    pub most_nodes: Option<usize>,
    /// How many descriptors the open files of one volume may use. Default: an eighth of the limit; the whole limit if there is only one directory.
    pub volume_descriptors: Option<usize>,
    /// With volumes: only root and this group may enter the root of the mount. `None`: everybody may.
    pub group: Option<u32>,
    /// How long lock requests wait.
    pub limits: Limits,
    /// Path of the control socket, if there is one. It is reported to another daemon that wants to serve the same directory.
    pub control: Option<PathBuf>,
}

impl Default for MountOptions {
    fn default() -> Self {
        MountOptions {
            passthrough: true,
            event_loops: 1,
            node_per_connection: true,
            stay_awake: true,
            most_nodes: None,
            volume_descriptors: None,
            group: None,
            limits: Limits::default(),
            control: None,
        }
    }
}
