//! What the API shows: plain values, serialised field by field as the wire contract has them.

mod container;
mod dedupe;
mod diff;
mod environment;
mod event;
mod exec;
mod file;
mod identity;
mod image;
pub mod mount;
mod operation;
mod page;
mod policy;
mod policy_preview;
mod policy_target;
mod project;
mod promote;
mod restore_files;
pub mod run;
mod schedule_counts;
mod server;
mod share;
mod snapshot;
pub mod space;
mod stats;
mod timeline;
mod token;
mod transfer;
mod trash;
pub(crate) mod validate;
pub mod volume;

pub use container::*;
pub use dedupe::*;
pub use diff::*;
pub use environment::*;
pub use event::*;
pub use exec::*;
pub use file::*;
pub use identity::*;
pub use image::*;
pub use operation::*;
pub use page::*;
pub use policy::*;
pub use policy_preview::*;
pub use policy_target::*;
pub use project::*;
pub use promote::*;
pub use restore_files::*;
pub use schedule_counts::*;
pub use server::*;
pub use share::*;
pub use snapshot::*;
pub use stats::*;
pub use timeline::*;
pub use token::*;
pub use transfer::*;
pub use trash::*;

/// Tells an absent field from one that is null: `#[serde(default, deserialize_with = "present")]` on an `Option<Option<T>>`.
///
/// # Errors
/// Those of `T`.
pub fn present<'de, T: serde::Deserialize<'de>, D: serde::Deserializer<'de>>(d: D) -> Result<Option<T>, D::Error> {
    T::deserialize(d).map(Some)
}

/// A number of bytes, or a size such as `20G`.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum SizeText {
    Number(u64),
    Text(String),
}

/// A field that may be absent, null, a number of bytes or a size such as `20G`. For `deserialize_with`.
///
/// # Errors
/// When it is none of these.
pub fn present_size<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<Option<crate::units::Bytes>>, D::Error> {
    use serde::Deserialize;
    let size = Option::<SizeText>::deserialize(d)?;
    let size = size.map(|s| match s {
        SizeText::Number(n) => Ok(crate::units::Bytes(n)),
        SizeText::Text(t) => t.parse().map_err(|e: crate::Error| serde::de::Error::custom(e.message().to_owned())),
    });
    size.transpose().map(Some)
}
