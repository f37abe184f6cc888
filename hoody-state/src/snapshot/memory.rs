//! In memory: a map of maps, for tests and for embedders' own tests.
