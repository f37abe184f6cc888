//! A container's environment.

use super::validate;
use crate::error::{Code, Error, Result};
use std::collections::BTreeMap;

/// How many variables an environment may have.
const MAX_VARIABLES: usize = 256;

/// A change of a container's environment. Running processes keep theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvironmentChange {
    /// All of it.
    Replace(BTreeMap<String, String>),
    /// These variables, the rest stays.
    Merge(BTreeMap<String, String>),
    /// One variable; its value may have up to 32,768 bytes.
    Set(String, String),
    /// One variable less.
    Remove(String),
}

impl EnvironmentChange {
    /// The environment after the change.
    ///
    /// # Errors
    /// `validation_error`, `environment_variable_not_found`.
    pub(crate) fn apply(self, mut env: BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
        match self {
            EnvironmentChange::Replace(all) => {
                validate::environment(&all)?;
                env = all;
            }
            EnvironmentChange::Merge(some) => {
                validate::environment(&some)?;
                env.extend(some);
            }
            EnvironmentChange::Set(k, v) => {
                validate::variable(&k, &v, 0, 32768)?;
                env.insert(k, v);
            }
            EnvironmentChange::Remove(k) => {
                if env.remove(&k).is_none() {
                    let shown: String = k.chars().take(128).collect();
                    return Err(Error::new(Code::EnvironmentVariableNotFound, format!("there is no environment variable {shown:?} in the container")));
                }
            }
        }
        if env.len() > MAX_VARIABLES {
            return Err(Error::new(Code::ValidationError, format!("environment_vars: at most {MAX_VARIABLES} variables; this would make {}", env.len())));
        }
        Ok(env)
    }
}
