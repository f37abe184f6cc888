//! The pool: the BTRFS file system that everything lives in.
//!
//! On a device, or on a loop image that is made, formatted, mounted and grown here. Self-describing: a small record inside says
//! whose it is, which format and which id base it has; a file system without that record is never touched.

pub mod layout;
