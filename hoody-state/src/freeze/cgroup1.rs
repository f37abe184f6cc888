//! cgroup v1: `freezer.state`.
