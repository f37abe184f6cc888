//! Growing an image: the file, then the loop device. Each is brought to the wanted size if it is smaller, so that the next open finishes a grow that a crash
//! interrupted. The file system follows according to its reserve (`reserve.rs`).

use super::step::{Hook, Step};
use crate::error::{Code, Error, IoContext, Result};
use crate::sys::loops::Attached;
use crate::units::Bytes;
use std::fs::File;
use std::path::Path;

/// The length of an image is a multiple of this.
pub(super) const GRAIN: u64 = 1 << 20;

/// `size` rounded up to a length that an image can have.
pub(super) fn rounded(size: Bytes) -> Bytes {
    Bytes(size.0.div_ceil(GRAIN).saturating_mul(GRAIN))
}

/// Makes the image file `wanted` long. Error: `pool_shrink`.
pub(super) fn extend_image(image: &Path, wanted: Bytes) -> Result<()> {
    let what = || format!("grow {}", image.display());
    let file = File::options().write(true).open(image).io(what)?;
    let now = Bytes(file.metadata().io(what)?.len());
    let wanted = rounded(wanted);
    if wanted < now {
        return Err(Error::new(
            Code::PoolShrink,
            format!("the pool has {now} and cannot be made smaller ({wanted} was asked for): copy its containers to a smaller pool"),
        ));
    }
    if wanted > now {
        file.set_len(wanted.0).io(what)?;
        file.sync_all().io(what)?;
        tracing::info!(from = %now, to = %wanted, "grew the pool's image");
    }
    Ok(())
}

/// Brings the loop device to the size of the image.
pub(super) fn follow(image: &Path, attached: &Attached, hook: &Hook<'_>) -> Result<()> {
    let length = std::fs::metadata(image).io(|| format!("stat {}", image.display()))?.len();
    attached.grow_to(length)?;
    hook.passed(Step::DeviceGrown)
}
