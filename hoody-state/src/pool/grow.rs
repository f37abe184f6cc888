//! Growing an image: the file, then the loop device. Whichever is behind is brought along, so that a grow that was cut short is finished by the next
//! open. The file system follows as its reserve says (`reserve.rs`).

use super::open::{Hook, Step};
use crate::error::{Code, Error, IoContext, Result};
use crate::sys::loops::Attached;
use crate::units::Bytes;
use std::fs::File;
use std::path::Path;

/// An image is a whole number of these.
pub(super) const GRAIN: u64 = 1 << 20;

/// `size` rounded up to what an image can have.
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
            format!("the pool has {now} and cannot be made smaller ({wanted} asked): copy its containers to a smaller pool"),
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
