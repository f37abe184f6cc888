//! The HTTP server of `hoody-state`.
