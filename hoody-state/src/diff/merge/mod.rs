//! Three-way merge of the changes of two trees since a common base: a decision, without I/O.
//!
//! **Vocabulary.** Both trees grew from the *base*. The *winner* is the tree that the result begins from; the *loser*'s changes are applied to it. Where the two
//! contradict each other there is a [`Conflict`], and the winner's state stays. (Who is preferred wins; without a preference any conflict ends the merge.)
//!
//! **What is merged is names and objects**, not paths. A name is (directory as an object, name in it); an object is a file or a directory wherever it is. So a
//! directory that one tree renamed and a file in it that the other changed do not contradict each other.
//!
//! | winner | loser | result |
//! | --- | --- | --- |
//! | – | changed | changed |
//! | changed | – | stays |
//! | the same | the same | stays |
//! | content or metadata changed | changed differently | conflict |
//! | deleted | changed, renamed | conflict |
//! | renamed | renamed to elsewhere | conflict |
//! | a new object at a name | another new object at that name | conflict, unless both are directories or are equal |
//! | directory deleted | something new or moved in it | conflict |
//! | directory moved into another | that one moved into the first | conflict |
//!
//! and the same with the two exchanged.
//!
//! **A SQLite database** is one thing with its companions `-wal` and `-journal`: if both trees changed any of them, that is one conflict, at the database. A
//! `-shm` file is rebuilt by the first process that opens the database, so it never is a conflict: the winner's stays.
//!
//! Memory follows the number of changes.

mod decide;
mod place;
mod side;
#[cfg(test)]
mod tests;

use crate::diff::Record;
use crate::error::Result;

/// What one of the trees did to a name or to its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Did {
    /// It made an object at a name that the base does not have.
    Added,
    /// It put another object in the place of the base's.
    Replaced,
    /// It changed the content.
    Modified,
    /// It changed metadata only.
    Metadata,
    /// It gave the object another name.
    Renamed,
    /// It deleted the object.
    Deleted,
    /// It put something into a directory, or took no part in this by itself: a companion of a database changed.
    ChangedWithin,
}

/// A contradiction between the two trees.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    /// Where the result has it, or would have it. Relative to the root, as in a [`Record`].
    pub path: Vec<u8>,
    /// What the winner did.
    pub winner: Did,
    /// What the loser did, which is not in the result.
    pub loser: Did,
}

/// One change of the winner's tree. Applied in order, they make it the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Removes one name. A directory is empty by then.
    Remove {
        /// In the tree as it is at this step.
        at: Vec<u8>,
    },
    /// Takes an object out of the tree, with all that is in it, and keeps it under a number.
    TakeOut {
        /// In the tree as it is at this step.
        at: Vec<u8>,
        /// Its number.
        number: usize,
    },
    /// Puts an object back at another name.
    PutBack {
        /// Its number.
        number: usize,
        /// In the result. Nothing is there.
        to: Vec<u8>,
    },
    /// Copies an object with its content and metadata, a directory without what is in it.
    Create {
        /// In the loser's tree.
        from: Vec<u8>,
        /// In the result. Nothing is there.
        to: Vec<u8>,
    },
    /// Makes a hard link.
    Link {
        /// In the result: a name of the object.
        of: Vec<u8>,
        /// In the result. Nothing is there.
        to: Vec<u8>,
    },
    /// Sets the metadata of an object that exists, and of a file its content.
    Set {
        /// In the loser's tree.
        from: Vec<u8>,
        /// In the result.
        to: Vec<u8>,
        /// Whether the content changed too.
        content: bool,
    },
    /// Makes a name what the loser's tree has there, with everything in it, or nothing. No merge has this step: it is for names that always are one tree's.
    Mirror {
        /// In both trees.
        path: Vec<u8>,
    },
}

impl Step {
    /// The paths in it.
    #[must_use]
    pub fn paths(&self) -> [Option<&[u8]>; 2] {
        match self {
            Step::Remove { at: path } | Step::TakeOut { at: path, .. } | Step::PutBack { to: path, .. } | Step::Mirror { path } => [Some(path), None],
            Step::Create { from, to } | Step::Link { of: from, to } | Step::Set { from, to, .. } => [Some(from), Some(to)],
        }
    }
}

/// What a merge came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Merged {
    /// What makes the winner's tree the result.
    pub steps: Vec<Step>,
    /// By path. Empty if the two trees do not contradict each other.
    pub conflicts: Vec<Conflict>,
}

/// Compares objects of the two trees.
pub trait Compare {
    /// Whether two objects are equal: type, owner, mode, attributes and content, but not times. Directories are compared without what is in them.
    ///
    /// # Errors
    /// What keeps them from being read.
    fn equal(&self, winner: &[u8], loser: &[u8]) -> Result<bool>;
}

/// Merges what two trees changed since their base. `winner` and `loser` are all records of a comparison of the base with that tree.
///
/// # Errors
/// Those of `compare`.
pub fn merge(winner: &[Record], loser: &[Record], compare: &dyn Compare) -> Result<Merged> {
    let mut merge = decide::Merge::new(winner, loser, compare);
    merge.decide()?;
    Ok(Merged { steps: merge.steps(), conflicts: merge.conflicts() })
}
