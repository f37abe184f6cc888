//! The byte ranges that one owner holds on one file, with the semantics of `fcntl(2)`: setting a range overwrites what it covers.

/// Shared or exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LockKind {
    /// Shared.
    Read,
    /// Exclusive.
    Write,
}

/// Bytes `start..=end` of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    /// First byte.
    pub start: u64,
    /// Last byte, inclusive.
    pub end: u64,
}

impl Range {
    /// `start..=end`.
    #[must_use]
    pub const fn new(start: u64, end: u64) -> Self {
        Range { start, end }
    }

    /// One byte.
    #[must_use]
    pub const fn byte(at: u64) -> Self {
        Range { start: at, end: at }
    }

    /// Whether the two share a byte.
    #[must_use]
    pub const fn overlaps(self, other: Range) -> bool {
        self.start <= other.end && other.start <= self.end
    }

    /// Whether all of `self` lies in `other`.
    #[must_use]
    pub const fn within(self, other: Range) -> bool {
        other.start <= self.start && self.end <= other.end
    }
}

/// The locks of one owner on one file: sorted, disjoint, with neighbours of one kind merged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges(Vec<(Range, LockKind)>);

impl Ranges {
    /// Locks (or, with `None`, unlocks) a range.
    pub fn set(&mut self, range: Range, kind: Option<LockKind>) {
        let mut next: Vec<(Range, LockKind)> = Vec::with_capacity(self.0.len() + 2);
        for (held, k) in self.0.drain(..) {
            if !held.overlaps(range) {
                next.push((held, k));
                continue;
            }
            if held.start < range.start {
                next.push((Range::new(held.start, range.start - 1), k));
            }
            if held.end > range.end {
                next.push((Range::new(range.end + 1, held.end), k));
            }
        }
        if let Some(kind) = kind {
            next.push((range, kind));
        }
        next.sort_unstable();
        for (held, k) in next {
            match self.0.last_mut() {
                Some((last, lk)) if *lk == k && last.end.checked_add(1) == Some(held.start) => last.end = held.end,
                _ => self.0.push((held, k)),
            }
        }
    }

    /// The first held range that a lock of `kind` on `range` by another owner would conflict with.
    #[must_use]
    pub fn conflict(&self, range: Range, kind: LockKind) -> Option<(Range, LockKind)> {
        self.0.iter().copied().find(|(held, k)| held.overlaps(range) && (*k == LockKind::Write || kind == LockKind::Write))
    }

    /// Whether anything in `range` is held.
    #[must_use]
    pub fn holds(&self, range: Range) -> bool {
        self.0.iter().any(|(held, _)| held.overlaps(range))
    }

    /// Whether anything in `range` is held for writing.
    #[must_use]
    pub fn writes(&self, range: Range) -> bool {
        self.0.iter().any(|(held, k)| *k == LockKind::Write && held.overlaps(range))
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The held ranges, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Range, LockKind)> + '_ {
        self.0.iter().copied()
    }
}
