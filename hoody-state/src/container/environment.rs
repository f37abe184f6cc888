use super::validate;
use crate::catalog::containers;
use crate::error::{Code, Error, Result};
use crate::host::{Caller, Host};
use crate::id::ContainerId;
use std::collections::BTreeMap;

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

impl Host {
    /// The environment that init gets at the next start.
    ///
    /// # Errors
    /// `container_not_found`.
    pub fn environment(&self, id: &ContainerId) -> Result<BTreeMap<String, String>> {
        Ok(self.0.catalog.read(|c| containers::get(c, id))?.spec.env)
    }

    /// Changes it.
    ///
    /// # Errors
    /// `container_not_found`, `validation_error`, `environment_variable_not_found`.
    pub fn set_environment(&self, caller: &Caller, id: &ContainerId, change: EnvironmentChange) -> Result<BTreeMap<String, String>> {
        self.change(caller, |tx| {
            let mut env = containers::get(tx.conn, id)?.spec.env;
            match change {
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
                        return Err(Error::new(Code::EnvironmentVariableNotFound, format!("container {id} has no environment variable {shown:?}")));
                    }
                }
            }
            if env.len() > 256 {
                return Err(Error::new(Code::ValidationError, format!("environment_vars: at most 256 variables; this would make {}", env.len())));
            }
            let r = tx.change_container(id, &caller.by, None, |r| r.spec.env = env)?;
            tx.emit_container("container.resource_updated", &r, serde_json::json!({ "changed": ["environment_vars"] }))?;
            Ok(r.spec.env)
        })
    }
}
