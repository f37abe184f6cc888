//! cgroup v2: `cgroup.freeze`, waited on through `cgroup.events`.
