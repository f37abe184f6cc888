//! In memory: a set of frozen containers.
