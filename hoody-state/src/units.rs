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

/// How long something is kept, in seconds, as people write it: `90s`, `15m`, `6h`, `7d`, `2w`. One unit, whole numbers, at least a second.
/// It is written with the largest unit up to days that leaves no rest: `48h` and `2d` are both `2d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String))]
pub struct Age(u64);

impl Age {
    /// The longest age: 3650 days.
    pub const MAX: Age = Age::days(3650);

    /// `n` days; at most [`Age::MAX`].
    #[must_use]
    pub const fn days(n: u64) -> Self {
        let n = if n > 3650 { 3650 } else { n };
        Age(n * 86_400)
    }

    /// Its length in seconds.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0
    }

    /// Its length.
    #[must_use]
    pub const fn as_duration(self) -> std::time::Duration {
        std::time::Duration::from_secs(self.0)
    }

    /// The time that is this long after `start`; the last possible time if that lies beyond it.
    #[must_use]
    pub fn after(self, start: jiff::Timestamp) -> jiff::Timestamp {
        start.checked_add(self.as_duration()).unwrap_or(jiff::Timestamp::MAX)
    }

    /// The time that is this long before `end`; the first possible time if that lies before it.
    #[must_use]
    pub fn before(self, end: jiff::Timestamp) -> jiff::Timestamp {
        end.checked_sub(self.as_duration()).unwrap_or(jiff::Timestamp::MIN)
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (size, unit) = [(86_400, 'd'), (3600, 'h'), (60, 'm')].into_iter().find(|(size, _)| self.0.is_multiple_of(*size)).unwrap_or((1, 's'));
        write!(f, "{}{unit}", self.0 / size)
    }
}

impl std::str::FromStr for Age {
    type Err = crate::error::Error;

    fn from_str(s: &str) -> crate::error::Result<Self> {
        let shown: String = s.chars().take(40).collect();
        let bad = |why: &str| crate::error::Error::new(crate::error::Code::InvalidAge, format!("{shown:?} is not an age: {why}"));
        let form = "write a number and a unit, such as 90s, 15m, 6h, 7d or 2w";
        let digits = s.find(|c: char| !c.is_ascii_digit()).ok_or_else(|| bad(form))?;
        let unit = match &s[digits..] {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            "w" => 604_800,
            _ => return Err(bad(form)),
        };
        if digits == 0 {
            return Err(bad(form));
        }
        let seconds = s[..digits].parse::<u64>().ok().and_then(|n| n.checked_mul(unit)).filter(|s| *s <= Age::MAX.0);
        match seconds {
            Some(0) => Err(bad("it must be at least one second")),
            Some(seconds) => Ok(Age(seconds)),
            None => Err(bad("it must be at most 3650 days")),
        }
    }
}

impl Serialize for Age {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Age {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(|e: crate::error::Error| serde::de::Error::custom(e.message().to_owned()))
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

    #[test]
    fn ages_are_read_and_written_with_a_unit() {
        for (text, seconds, shown) in
            [("90s", 90, "90s"), ("15m", 900, "15m"), ("6h", 21_600, "6h"), ("7d", 604_800, "7d"), ("2w", 1_209_600, "14d"), ("48h", 172_800, "2d")]
        {
            let age: Age = text.parse().unwrap();
            assert_eq!((age.as_secs(), age.to_string().as_str()), (seconds, shown), "{text}");
            assert_eq!(shown.parse::<Age>().unwrap(), age);
        }
        for bad in ["", "7", "d", "0s", "-1d", "+1d", "1.5h", "7D", "7 d", "1d2h", "3651d", "99999999999999999999w", "٣d", "1é"] {
            assert_eq!(bad.parse::<Age>().unwrap_err().code(), Code::InvalidAge, "{bad}");
        }
        assert_eq!(Age::MAX.after(jiff::Timestamp::MAX), jiff::Timestamp::MAX);
        assert_eq!(Age::days(1).before(jiff::Timestamp::MIN), jiff::Timestamp::MIN);
    }
}
