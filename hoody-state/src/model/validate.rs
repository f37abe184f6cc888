//! Checks of what callers ask a container to be. Without I/O.

use crate::error::{Code, Error, Result};
use std::collections::BTreeMap;

const MAX_ENV: usize = 256;

/// Checks one variable; `max` is the longest value.
pub(crate) fn variable(key: &str, value: &str, min: usize, max: usize) -> Result<()> {
    let mut b = key.bytes();
    let first = b.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    let shown: String = key.chars().take(40).collect();
    if !first || key.len() > 128 || !b.all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(Error::new(
            Code::ValidationError,
            format!("environment_vars: {shown:?} is no variable name: it must match [A-Za-z_][A-Za-z0-9_]* and have at most 128 characters"),
        ));
    }
    if value.len() < min || value.len() > max || value.contains('\0') {
        return Err(Error::new(
            Code::ValidationError,
            format!("environment_vars: the value of {shown} must have {min} to {max} bytes and no NUL; it has {}", value.len()),
        ));
    }
    Ok(())
}

pub(crate) fn environment(env: &BTreeMap<String, String>) -> Result<()> {
    if env.len() > MAX_ENV {
        return Err(Error::new(Code::ValidationError, format!("environment_vars: at most {MAX_ENV} variables; {} given", env.len())));
    }
    env.iter().try_for_each(|(k, v)| variable(k, v, 1, 4096))
}

pub(crate) fn text(what: &str, s: Option<&str>, max: usize) -> Result<()> {
    match s {
        Some(s) if s.chars().count() > max => Err(Error::new(Code::ValidationError, format!("{what}: at most {max} characters; {} given", s.chars().count()))),
        _ => Ok(()),
    }
}

pub(crate) fn command(argv: &[String]) -> Result<()> {
    let total: usize = argv.iter().map(String::len).sum();
    if argv.is_empty() || argv[0].is_empty() || argv.iter().any(|a| a.contains('\0')) || total > 64 << 10 {
        return Err(Error::new(Code::ValidationError, "command: it must be a list of strings without NUL, the first not empty, 64 KiB in all at most"));
    }
    Ok(())
}

pub(crate) fn cpu(n: Option<f64>) -> Result<()> {
    match n {
        Some(n) if !(n.is_finite() && (0.01..=1024.0).contains(&n)) => {
            Err(Error::new(Code::ValidationError, format!("cpu: {n} is out of range: 0.01 to 1024 processors")))
        }
        _ => Ok(()),
    }
}

pub(crate) fn memory(mib: Option<u64>) -> Result<()> {
    match mib {
        Some(n) if !(4..=64 << 20).contains(&n) => Err(Error::new(Code::ValidationError, format!("memory: {n} is out of range: at least 4 MiB"))),
        _ => Ok(()),
    }
}

/// A colour: `#RGB` or `#RRGGBB`, with or without `#`, as `#RRGGBB` in upper case.
pub(crate) fn color(s: &str) -> Result<String> {
    let hex = s.strip_prefix('#').unwrap_or(s);
    let good = matches!(hex.len(), 3 | 6) && hex.bytes().all(|b| b.is_ascii_hexdigit());
    if !good {
        let shown: String = s.chars().take(20).collect();
        return Err(Error::new(Code::InvalidColorFormat, format!("{shown:?} is no colour: write #RGB or #RRGGBB")));
    }
    let long: String = if hex.len() == 3 { hex.chars().flat_map(|c| [c, c]).collect() } else { hex.to_owned() };
    Ok(format!("#{}", long.to_ascii_uppercase()))
}

/// A colour at random, for what nobody gave one.
pub(crate) fn random_color() -> String {
    let mut b = [0u8; 3];
    let _ = getrandom::fill(&mut b);
    format!("#{:02X}{:02X}{:02X}", b[0], b[1], b[2])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::color;
    use crate::Code;

    #[test]
    fn colours_are_answered_in_one_form() {
        assert_eq!(color("1f6feb").unwrap(), "#1F6FEB");
        assert_eq!(color("#abc").unwrap(), "#AABBCC");
        for bad in ["", "#", "#12", "#12345", "red", "#GGGGGG", "#é12"] {
            assert_eq!(color(bad).unwrap_err().code(), Code::InvalidColorFormat, "{bad}");
        }
    }
}
