//! The aliases of scheduled snapshots.

use crate::model::DEFAULT_ALIAS_PATTERN;
use crate::name::Alias;
use jiff::ZonedDateTime;
use jiff::fmt::strtime;

/// The longest alias, in characters.
const MAX_ALIAS: usize = 100;

/// Checks a pattern.
///
/// # Errors
/// What is wrong with it, for people.
pub(super) fn check(pattern: Option<&str>) -> Result<(), String> {
    let Some(pattern) = pattern else { return Ok(()) };
    let rest = pattern.replace("{container}", "").replace("{schedule}", "");
    if rest.contains(['{', '}']) {
        return Err(format!("{pattern:?} has braces that are neither {{container}} nor {{schedule}}"));
    }
    let sample = ZonedDateTime::new(jiff::Timestamp::UNIX_EPOCH, jiff::tz::TimeZone::UTC);
    let text = strtime::format(pattern, &sample).map_err(|e| format!("{pattern:?} is not a pattern of strftime: {e}"))?;
    if text.chars().any(char::is_control) || text.trim().is_empty() {
        return Err(format!("{pattern:?} makes an alias that is empty or has control characters"));
    }
    Ok(())
}

/// The alias for a time; if the pattern is not valid, that of the default.
pub(super) fn render(pattern: Option<&str>, schedule: &str, container: &str, at: &ZonedDateTime) -> String {
    let text = |pattern: &str| {
        // Names have no `%`, so they may be put in before the times.
        let named = pattern.replace("{container}", container).replace("{schedule}", schedule);
        strtime::format(&named, at).ok().map(|text| text.chars().take(MAX_ALIAS).collect::<String>()).filter(|text| text.parse::<Alias>().is_ok())
    };
    pattern.and_then(text).or_else(|| text(DEFAULT_ALIAS_PATTERN)).unwrap_or_else(|| schedule.to_owned())
}
