//! A FUSE file system over a directory, on which any number of processes write the same SQLite database and none finds it locked.

pub mod locks;
