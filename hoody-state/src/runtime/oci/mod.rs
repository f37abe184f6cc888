//! An OCI runtime (`runc`, `crun`, `youki`) as a process.
