//! Where the content of a file is, and how much of it another version does not have. Pure.

use crate::error::Result;

/// What stands behind a range of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Bytes stored in the tree itself, with how they are packed.
    Inline(Vec<u8>),
    /// A data extent: its address, where the file's byte 0 would be in it, and how it is packed.
    Data {
        /// The extent's address.
        disk: u64,
        /// The position in the extent minus the position in the file, modulo 2^64.
        shift: u64,
        /// The method of compression.
        packed: u8,
    },
}

/// A range of a file that has data. Between ranges are zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// The first byte in the file.
    pub start: u64,
    /// One more than the last.
    pub end: u64,
    /// Its data.
    pub place: Place,
}

/// How two versions of a file compare.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changed {
    /// Bytes of the new version with other data behind them than in the old.
    pub bytes: u64,
    /// Whether anything differs; also a hole where data were.
    pub any: bool,
}

/// A source of extents, in the order of the file. `None` at its end.
pub type Source<'a> = &'a mut dyn FnMut() -> Result<Option<Extent>>;

/// Compares two versions of a file by their extents, up to their sizes. What lies behind a size does not count.
///
/// # Errors
/// Those of the sources.
pub fn compare(old: (Source<'_>, u64), new: (Source<'_>, u64)) -> Result<Changed> {
    let mut changed = Changed { bytes: 0, any: old.1 != new.1 };
    let mut next_old = || clipped(&mut *old.0, old.1);
    let mut next_new = || clipped(&mut *new.0, new.1);
    let (mut a, mut b) = (next_old()?, next_new()?);
    let mut at = 0;
    loop {
        while a.as_ref().is_some_and(|e| e.end <= at) {
            a = next_old()?;
        }
        while b.as_ref().is_some_and(|e| e.end <= at) {
            b = next_new()?;
        }
        let (from_a, to_a) = span(a.as_ref(), at);
        let (from_b, to_b) = span(b.as_ref(), at);
        let end = to_a.min(to_b);
        if end == u64::MAX {
            return Ok(changed);
        }
        match (from_a, from_b) {
            (None, None) => {}
            (Some(x), Some(y)) if x == y => {}
            (_, new) => {
                changed.any = true;
                changed.bytes += if new.is_some() { end - at } else { 0 };
            }
        }
        at = end;
    }
}

/// What stands behind the byte `at`, and up to where that holds.
fn span(extent: Option<&Extent>, at: u64) -> (Option<&Place>, u64) {
    match extent {
        None => (None, u64::MAX),
        Some(e) if e.start > at => (None, e.start),
        Some(e) => (Some(&e.place), e.end),
    }
}

fn clipped(source: Source<'_>, size: u64) -> Result<Option<Extent>> {
    while let Some(mut e) = source()? {
        e.end = e.end.min(size);
        if e.start < e.end {
            return Ok(Some(e));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn data(start: u64, end: u64, disk: u64, offset: u64) -> Extent {
        Extent { start, end, place: Place::Data { disk, shift: offset.wrapping_sub(start), packed: 0 } }
    }

    fn of(old: &[Extent], old_size: u64, new: &[Extent], new_size: u64) -> Changed {
        let (mut a, mut b) = (old.iter().cloned(), new.iter().cloned());
        compare((&mut || Ok(a.next()), old_size), (&mut || Ok(b.next()), new_size)).unwrap()
    }

    #[test]
    fn what_is_shared_does_not_count_and_a_hole_counts_as_a_change_of_no_bytes() {
        let whole = [data(0, 100, 1, 0)];
        let split = [data(0, 40, 1, 0), data(40, 100, 1, 40)];
        assert_eq!(of(&whole, 100, &split, 100), Changed::default());
        assert_eq!(of(&whole, 100, &[data(0, 40, 1, 0), data(40, 60, 2, 0), data(60, 100, 1, 60)], 100), Changed { bytes: 20, any: true });
        assert_eq!(of(&whole, 100, &[data(0, 40, 1, 0)], 100), Changed { bytes: 0, any: true });
        assert_eq!(of(&whole, 100, &whole, 50), Changed { bytes: 0, any: true });
        assert_eq!(of(&whole, 50, &whole, 100), Changed { bytes: 50, any: true });
        assert_eq!(of(&[], 0, &whole, 70), Changed { bytes: 70, any: true });
        assert_eq!(of(&[], 9, &[], 9), Changed::default());
    }

    /// A model: for each byte, what stands behind it.
    fn bytes(extents: &[Extent], size: u64) -> Vec<Option<(u64, u64)>> {
        let mut all = vec![None; usize::try_from(size).unwrap()];
        for e in extents {
            let Place::Data { disk, shift, .. } = e.place else { continue };
            for at in e.start..e.end.min(size) {
                all[usize::try_from(at).unwrap()] = Some((disk, at.wrapping_add(shift)));
            }
        }
        all
    }

    fn file() -> impl Strategy<Value = (Vec<Extent>, u64)> {
        (proptest::collection::vec((0u64..6, 1u64..12, 0u64..3, 0u64..4), 0..8), 0u64..80).prop_map(|(parts, size)| {
            let mut at = 0;
            let parts = parts.into_iter().map(|(gap, len, disk, offset)| {
                let e = data(at + gap, at + gap + len, disk, offset);
                at += gap + len;
                e
            });
            (parts.collect(), size)
        })
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_comparison_byte_by_byte((old, old_size) in file(), (new, new_size) in file()) {
            let (a, b) = (bytes(&old, old_size), bytes(&new, new_size));
            let changed = b.iter().enumerate().filter(|(i, p)| p.is_some() && a.get(*i).copied().flatten() != **p).count() as u64;
            let any = old_size != new_size || a != b;
            prop_assert_eq!(of(&old, old_size, &new, new_size), Changed { bytes: changed, any });
        }
    }
}
