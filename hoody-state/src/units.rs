//! Units as types, so that no bare integer crosses a module's edge.
use serde::{Deserialize, Serialize};
use std::fmt;

/// A number of bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = u64))]
#[serde(transparent)]
pub struct Bytes(pub u64);

impl Bytes {
    /// `n` MiB.
    #[must_use]
    pub const fn mib(n: u64) -> Self {
        Bytes(n << 20)
    }

    /// `n` GiB.
    #[must_use]
    pub const fn gib(n: u64) -> Self {
        Bytes(n << 30)
    }
}

impl std::ops::Add for Bytes {
    type Output = Bytes;
    fn add(self, o: Bytes) -> Bytes {
        Bytes(self.0.saturating_add(o.0))
    }
}

impl std::ops::Sub for Bytes {
    type Output = Bytes;
    fn sub(self, o: Bytes) -> Bytes {
        Bytes(self.0.saturating_sub(o.0))
    }
}

impl std::iter::Sum for Bytes {
    fn sum<I: Iterator<Item = Bytes>>(iter: I) -> Bytes {
        iter.fold(Bytes(0), |a, b| a + b)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut n = self.0 as f64;
        for unit in ["B", "KiB", "MiB", "GiB"] {
            if n < 1024.0 {
                return if unit == "B" { write!(f, "{} B", self.0) } else { write!(f, "{n:.1} {unit}") };
            }
            n /= 1024.0;
        }
        write!(f, "{n:.1} TiB")
    }
}

impl std::str::FromStr for Bytes {
    type Err = crate::error::Error;

    /// `512`, `10M`, `20GiB`, `1T`: powers of 1024.
    fn from_str(s: &str) -> crate::error::Result<Self> {
        let bad = || crate::error::Error::new(crate::error::Code::InvalidSize, format!("{s:?} is no size: write 512, 64M, 20G or 1T"));
        let t = s.trim();
        let digits = t.find(|c: char| !c.is_ascii_digit()).unwrap_or(t.len());
        let n: u64 = t[..digits].parse().map_err(|_| bad())?;
        let shift = match t[digits..].trim().to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ => return Err(bad()),
        };
        n.checked_mul(1 << shift).map(Bytes).ok_or_else(bad)
    }
}

/// A BTRFS generation: the number of the transaction in which something last changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

/// The id of a volume inside one pool: never used twice, unlike its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VolumeId(pub u64);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Code;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!("20G".parse::<Bytes>().unwrap(), Bytes::gib(20));
        assert_eq!("64MiB".parse::<Bytes>().unwrap(), Bytes::mib(64));
        for bad in ["", "G", "-1", "99999999999T", "1X", "1.5G"] {
            assert_eq!(bad.parse::<Bytes>().unwrap_err().code(), Code::InvalidSize, "{bad}");
        }
        assert_eq!(Bytes(1536).to_string(), "1.5 KiB");
    }
}
