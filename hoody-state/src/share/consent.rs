//! Whether a share is mounted in a receiver, and under which name. Pure: no kernel, no clock, no catalog.

use std::collections::BTreeSet;

/// What the two sides say, and what is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Standing {
    /// The owner's switch.
    pub enabled: bool,
    /// The receiver's word, if it has given one.
    pub wanted: Option<bool>,
    /// Whether it was made for a whole project: then it is mounted unless the receiver says no; made for one container, only when that says yes.
    pub project_wide: bool,
    /// Whether its time is over.
    pub expired: bool,
    /// Whether the receiver is the owner itself.
    pub own: bool,
    /// Whether the source is there, as far as is known.
    pub source: bool,
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It is to be mounted.
    Mounted,
    /// Both agree, and there is nothing to mount.
    Missing,
    /// The receiver has not said yes, or has said no.
    NotWanted,
    /// The owner has switched it off.
    Disabled,
    /// Its time is over.
    Expired,
    /// A container does not receive from itself.
    Own,
}

/// The rule: all must agree, and any of them alone ends it.
#[must_use]
pub fn verdict(s: &Standing) -> Verdict {
    match s {
        Standing { own: true, .. } => Verdict::Own,
        Standing { expired: true, .. } => Verdict::Expired,
        Standing { enabled: false, .. } => Verdict::Disabled,
        Standing { wanted: Some(false), .. } | Standing { wanted: None, project_wide: false, .. } => Verdict::NotWanted,
        Standing { source: false, .. } => Verdict::Missing,
        _ => Verdict::Mounted,
    }
}

/// The name of a share in its receiver: `wanted` (its alias, or the last part of its path), with the end of its id where another has that name already.
#[must_use]
pub fn name(wanted: &str, id: &str, taken: &BTreeSet<String>) -> String {
    let wanted = if wanted.is_empty() || wanted == "." || wanted == ".." { "root" } else { wanted };
    let mut name = wanted.to_owned();
    let mut digits = 6;
    while taken.contains(&name) {
        let end = id.get(id.len().saturating_sub(digits)..).unwrap_or(id);
        // No name in a directory is longer than 255 bytes.
        let room = wanted.char_indices().map(|(i, _)| i).chain([wanted.len()]).take_while(|i| i + 1 + end.len() <= 255).last().unwrap_or(0);
        name = format!("{}-{end}", &wanted[..room]);
        digits += 2;
        if digits > id.len() + 2 {
            break;
        }
    }
    name
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn standing() -> impl Strategy<Value = Standing> {
        (any::<bool>(), any::<Option<bool>>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>())
            .prop_map(|(enabled, wanted, project_wide, expired, own, source)| Standing { enabled, wanted, project_wide, expired, own, source })
    }

    /// What can be done to a share, as its two sides do it.
    #[derive(Debug, Clone)]
    enum Act {
        Enable(bool),
        Mount(bool),
        Expire,
        Prolong,
        Source(bool),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            any::<bool>().prop_map(Act::Enable),
            any::<bool>().prop_map(Act::Mount),
            Just(Act::Expire),
            Just(Act::Prolong),
            any::<bool>().prop_map(Act::Source)
        ]
    }

    proptest! {
        #[test]
        fn each_side_alone_can_end_it(s in standing()) {
            let mounted = |s: &Standing| verdict(s) == Verdict::Mounted;
            if mounted(&s) {
                let ended = [
                    Standing { enabled: false, ..s },
                    Standing { wanted: Some(false), ..s },
                    Standing { expired: true, ..s },
                    Standing { own: true, ..s },
                    Standing { source: false, ..s },
                ];
                for e in ended {
                    prop_assert!(!mounted(&e), "one side ended it: {e:?}");
                }
            }
            // Nobody is given a directory of one container alone without a yes of its own.
            let silent = Standing { wanted: None, project_wide: false, ..s };
            prop_assert!(!mounted(&silent));
        }

        #[test]
        fn only_the_last_word_of_each_side_counts(project_wide: bool, acts in prop::collection::vec(act(), 0..20)) {
            let mut s = Standing { enabled: true, wanted: None, project_wide, expired: false, own: false, source: true };
            let (mut enabled, mut wanted, mut expired, mut source) = (true, None, false, true);
            for a in &acts {
                match a {
                    Act::Enable(on) => { s.enabled = *on; enabled = *on; }
                    Act::Mount(on) => { s.wanted = Some(*on); wanted = Some(*on); }
                    Act::Expire => { s.expired = true; expired = true; }
                    Act::Prolong => { s.expired = false; expired = false; }
                    Act::Source(there) => { s.source = *there; source = *there; }
                }
            }
            prop_assert_eq!(verdict(&s) == Verdict::Mounted, enabled && !expired && source && wanted.unwrap_or(project_wide));
        }

        #[test]
        fn names_are_never_shared(wanted in prop::collection::vec("[a-z.]{1,255}", 1..20)) {
            let mut taken = BTreeSet::new();
            for (i, w) in wanted.iter().enumerate() {
                let n = name(w, &format!("65f0c0ffee{i:014}"), &taken);
                prop_assert!(n.len() <= 255 && !n.contains('/') && n != "." && n != "..");
                prop_assert!(taken.insert(n));
            }
        }
    }
}
