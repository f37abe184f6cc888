//! Files and file systems.
