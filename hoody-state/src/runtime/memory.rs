//! In memory: runs that are rows.
