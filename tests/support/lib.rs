//! What the tests, benches and examples share.
