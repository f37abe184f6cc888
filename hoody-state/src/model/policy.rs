//! Snapshot policies: when snapshots are taken without being asked for, and how long they are kept.
//!
//! The types check their own form. Time zones and cron texts are checked by `retention`, which also decides what a policy means.

use crate::error::{Code, Error, Result};
use crate::units::Age;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// How many schedules a policy may have.
pub const MAX_SCHEDULES: usize = 16;
/// How many periods each rule of `keep` may name.
pub const MAX_KEEP: u32 = 10_000;
/// How many bytes a cron text may have.
pub const MAX_CRON: usize = 256;
/// How many characters a pattern of aliases may have.
pub const MAX_ALIAS_PATTERN: usize = 100;
/// The alias of scheduled snapshots whose schedule has no pattern.
pub const DEFAULT_ALIAS_PATTERN: &str = "{schedule}-%Y-%m-%d-%H%M";

/// When snapshots of a container are taken without being asked for, and how long they are kept.
///
/// A container uses its own policy, else its project's, else the server's: the nearest one as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SnapshotPolicy {
    /// The time zone of cron times and of the periods of `keep`: a name of the IANA database, such as `Europe/Berlin`. Default `UTC`.
    #[serde(default = "utc")]
    pub timezone: String,
    /// At most 16, with different names.
    #[serde(default)]
    pub schedules: Vec<Schedule>,
    /// Snapshots at events.
    #[serde(default)]
    pub on: AutomaticSnapshots,
}

fn utc() -> String {
    "UTC".to_owned()
}

impl Default for SnapshotPolicy {
    /// The policy that does nothing.
    fn default() -> Self {
        SnapshotPolicy { timezone: utc(), schedules: Vec::new(), on: AutomaticSnapshots::default() }
    }
}

/// Snapshots at the times of a cron text, and which of them are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// 1–32 of `[a-z0-9_-]`, not beginning with `_` or `-`; unique in the policy.
    pub name: String,
    /// Five fields (minute, hour, day of the month, month, day of the week), or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`.
    pub cron: String,
    /// The alias of its snapshots: `strftime` with `{container}` and `{schedule}`. Default `{schedule}-%Y-%m-%d-%H%M`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias_pattern: Option<String>,
    /// What is kept of this schedule's snapshots.
    pub keep: Keep,
    /// Older snapshots of this schedule are removed even if `keep` would keep them; the newest complete one never is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Age>,
    /// A run takes no snapshot if the container has not changed since the last one.
    #[serde(default)]
    pub only_if_changed: bool,
    /// Runs start up to this much later, by an offset that is fixed for each container; at most a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<Age>,
    /// In which states of the container a snapshot is taken. Default `any`.
    #[serde(default, rename = "while")]
    pub condition: While,
}

/// In which states of a container a schedule takes a snapshot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum While {
    /// Only while it runs.
    Running,
    /// In any.
    #[default]
    Any,
}

/// What is kept of a schedule's snapshots: what any of these rules keeps. At least one must be larger than 0.
///
/// The rules of periods keep the newest snapshot of each of the newest periods that have one, in the policy's time zone. While a rule has fewer periods than
/// it asks for, it keeps the oldest snapshot too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Keep {
    /// The newest snapshots, this many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u32>,
    /// Of this many hours one each. An hour that the clocks repeat is two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hourly: Option<u32>,
    /// Of this many days one each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daily: Option<u32>,
    /// Of this many ISO weeks (from Monday) one each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weekly: Option<u32>,
    /// Of this many months one each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monthly: Option<u32>,
    /// Of this many years one each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub yearly: Option<u32>,
}

/// A rule of [`Keep`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// `last`
    Last,
    /// `hourly`
    Hourly,
    /// `daily`
    Daily,
    /// `weekly`
    Weekly,
    /// `monthly`
    Monthly,
    /// `yearly`
    Yearly,
}

impl Tier {
    /// The name of its field.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Tier::Last => "last",
            Tier::Hourly => "hourly",
            Tier::Daily => "daily",
            Tier::Weekly => "weekly",
            Tier::Monthly => "monthly",
            Tier::Yearly => "yearly",
        }
    }
}

/// Which events take a snapshot. What is absent takes none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct AutomaticSnapshots {
    /// The container stopped. `true`: kept for 7 days, at most 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<Automatic>,
    /// The kernel killed something in it for want of memory. `true`: kept for 30 days, at most 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom: Option<Automatic>,
    /// It is about to be replaced by an older state: an undo snapshot is kept, whatever this says. `{max_age}` sets for how long; without it the server says so.
    /// `keep` is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<Automatic>,
    /// A command in it failed. `true`: kept for 7 days, at most 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec_failure: Option<Automatic>,
    /// It is deleted: it goes to the trash, from which it can be recovered. `true`: kept for 7 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before_delete: Option<Automatic>,
}

/// An event of [`AutomaticSnapshots`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AutomaticEvent {
    /// `stop`
    Stop,
    /// `oom`
    Oom,
    /// `restore`
    Restore,
    /// `exec_failure`
    ExecFailure,
    /// `before_delete`
    BeforeDelete,
}

/// Whether an event takes a snapshot: `true` (with the defaults of the event), `false`, or limits of one's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum Automatic {
    /// Yes with the defaults of the event, or no.
    Switch(bool),
    /// Yes, with these limits.
    Limits(AutomaticLimits),
}

/// How long the snapshots of an event are kept, and how many. What is absent is the default of the event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct AutomaticLimits {
    /// They are deleted when they are older.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Age>,
    /// When there are more, the oldest are deleted. 1–1000. Not for `restore`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<u32>,
}

impl<'de> Deserialize<'de> for Automatic {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Automatic;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or {max_age, keep}")
            }

            fn visit_bool<E>(self, on: bool) -> std::result::Result<Automatic, E> {
                Ok(Automatic::Switch(on))
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> std::result::Result<Automatic, A::Error> {
                AutomaticLimits::deserialize(serde::de::value::MapAccessDeserializer::new(map)).map(Automatic::Limits)
            }
        }
        d.deserialize_any(Visitor)
    }
}

impl AutomaticEvent {
    /// All of them.
    pub const ALL: [AutomaticEvent; 5] =
        [AutomaticEvent::Stop, AutomaticEvent::Oom, AutomaticEvent::Restore, AutomaticEvent::ExecFailure, AutomaticEvent::BeforeDelete];

    /// The name of its field.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            AutomaticEvent::Stop => "stop",
            AutomaticEvent::Oom => "oom",
            AutomaticEvent::Restore => "restore",
            AutomaticEvent::ExecFailure => "exec_failure",
            AutomaticEvent::BeforeDelete => "before_delete",
        }
    }

    /// The limits of `true`. For `restore` none: the server says how long undo snapshots are kept. For `before_delete` no number: a container is deleted once.
    #[must_use]
    pub const fn defaults(self) -> AutomaticLimits {
        let (max_age, keep) = match self {
            AutomaticEvent::Stop | AutomaticEvent::ExecFailure => (Some(Age::days(7)), Some(5)),
            AutomaticEvent::Oom => (Some(Age::days(30)), Some(5)),
            AutomaticEvent::Restore => (None, None),
            AutomaticEvent::BeforeDelete => (Some(Age::days(7)), None),
        };
        AutomaticLimits { max_age, keep }
    }
}

impl AutomaticSnapshots {
    /// The limits for snapshots of this event, with the defaults filled in; none if the event takes no snapshot.
    #[must_use]
    pub fn limits(&self, event: AutomaticEvent) -> Option<AutomaticLimits> {
        let defaults = event.defaults();
        match self.of(event)? {
            Automatic::Switch(false) => None,
            Automatic::Switch(true) => Some(defaults),
            Automatic::Limits(own) => Some(AutomaticLimits { max_age: own.max_age.or(defaults.max_age), keep: own.keep.or(defaults.keep) }),
        }
    }

    /// What is set for this event.
    #[must_use]
    pub fn of(&self, event: AutomaticEvent) -> Option<Automatic> {
        match event {
            AutomaticEvent::Stop => self.stop,
            AutomaticEvent::Oom => self.oom,
            AutomaticEvent::Restore => self.restore,
            AutomaticEvent::ExecFailure => self.exec_failure,
            AutomaticEvent::BeforeDelete => self.before_delete,
        }
    }
}

impl Keep {
    /// The rules with their numbers; a rule of 0 is one that is absent.
    pub fn rules(&self) -> impl Iterator<Item = (Tier, u32)> + use<> {
        let all = [
            (Tier::Last, self.last),
            (Tier::Hourly, self.hourly),
            (Tier::Daily, self.daily),
            (Tier::Weekly, self.weekly),
            (Tier::Monthly, self.monthly),
            (Tier::Yearly, self.yearly),
        ];
        all.into_iter().filter_map(|(tier, n)| n.filter(|n| *n > 0).map(|n| (tier, n)))
    }
}

/// The error for a field of a policy.
pub(crate) fn invalid_field(field: &str, problem: impl fmt::Display) -> Error {
    Error::new(Code::ValidationError, format!("{field}: {problem}")).with_data(serde_json::json!({ "field": field }))
}

impl SnapshotPolicy {
    /// Checks everything but the time zone and the cron texts. Messages name the schedule and the field.
    ///
    /// # Errors
    /// `validation_error`; its data has the path of the field, such as `schedules[0].keep`.
    pub fn check_form(&self) -> Result<()> {
        if self.schedules.len() > MAX_SCHEDULES {
            return Err(invalid_field("schedules", format!("at most {MAX_SCHEDULES} schedules; {} given", self.schedules.len())));
        }
        let mut names = BTreeSet::new();
        for (i, schedule) in self.schedules.iter().enumerate() {
            if !names.insert(schedule.name.as_str()) {
                return Err(schedule.invalid(i, "name", "another schedule of this policy has this name: choose a different one"));
            }
            schedule.check_form(i)?;
        }
        if let Some(Automatic::Limits(AutomaticLimits { keep: Some(_), .. })) = self.on.restore {
            let why = "undo snapshots are not counted: each is kept until it expires, and `undo` needs the newest; on.restore takes max_age only";
            return Err(invalid_field("on.restore.keep", why));
        }
        AutomaticEvent::ALL.into_iter().try_for_each(|event| match self.on.of(event) {
            Some(Automatic::Limits(AutomaticLimits { keep: Some(keep), .. })) if !(1..=1000).contains(&keep) => {
                Err(invalid_field(&format!("on.{}.keep", event.as_str()), format!("{keep} is out of range: 1 to 1000")))
            }
            _ => Ok(()),
        })
    }
}

impl Schedule {
    /// The error for a field of this schedule, which is the `index`th of its policy.
    pub(crate) fn invalid(&self, index: usize, field: &str, problem: impl fmt::Display) -> Error {
        let shown: String = self.name.chars().take(40).collect();
        invalid_field(&format!("schedules[{index}].{field}"), format!("schedule {shown:?}: {problem}"))
    }

    fn check_form(&self, index: usize) -> Result<()> {
        let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let good_name = (1..=32).contains(&self.name.len()) && self.name.bytes().all(|b| word(b) || b == b'_' || b == b'-');
        if !good_name || !self.name.bytes().next().is_some_and(word) {
            return Err(self.invalid(index, "name", "a name must be 1 to 32 of a-z 0-9 _ -, and begin with a letter or digit"));
        }
        if self.cron.len() > MAX_CRON {
            return Err(self.invalid(index, "cron", format!("at most {MAX_CRON} bytes; {} given", self.cron.len())));
        }
        if let Some(n) = self.alias_pattern.as_ref().map(|p| p.chars().count()).filter(|n| !(1..=MAX_ALIAS_PATTERN).contains(n)) {
            return Err(self.invalid(index, "alias_pattern", format!("1 to {MAX_ALIAS_PATTERN} characters; {n} given")));
        }
        if self.keep.rules().next().is_none() {
            return Err(self.invalid(index, "keep", "it keeps nothing: give at least one of last, hourly, daily, weekly, monthly and yearly a number above 0"));
        }
        if let Some((tier, n)) = self.keep.rules().find(|(_, n)| *n > MAX_KEEP) {
            return Err(self.invalid(index, &format!("keep.{}", tier.as_str()), format!("{n} is out of range: at most {MAX_KEEP}")));
        }
        match self.spread {
            Some(spread) if spread > Age::days(1) => Err(self.invalid(index, "spread", format!("{spread} is too long: at most a day"))),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
