//! Environment variables of a container.

use super::Routes;
use crate::app::Shared;
use crate::auth::Identity;
use crate::envelope::{Envelope, Reply, ok};
use crate::extract::{Id, Input, Named, Nothing, invalid};
use axum::extract::State;
use hoody_state::id::ContainerId;
use hoody_state::model::EnvironmentChange;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa_axum::routes;

/// The largest value of a variable, in bytes.
const VALUE_LIMIT: usize = 32768;

pub(crate) fn routes() -> Routes {
    Routes::new().routes(routes!(get, replace, merge)).routes(routes!(set, remove))
}

/// All variables.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Environment {
    environment_vars: BTreeMap<String, String>,
}

/// All variables, after a change.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct EnvironmentChanged {
    environment_vars: BTreeMap<String, String>,
    /// True: the variables are stored. Running processes keep theirs until the next start.
    synced: bool,
}

fn changed(environment_vars: BTreeMap<String, String>) -> Reply<EnvironmentChanged> {
    ok("Environment updated", EnvironmentChanged { environment_vars, synced: true })
}

/// Lists the environment variables of a container.
#[utoipa::path(get, path = "/containers/{id}/env", tag = "containers", operation_id = "get_environment", params(("id" = String, Path)), responses((status = 200, description = "All variables", body = Envelope<Environment>)))]
pub async fn get(State(app): State<Shared>, who: Identity, Id(id): Id<ContainerId>) -> Reply<Environment> {
    let environment_vars = app.look(who, id, |host, id| host.environment(id)).await?;
    ok("Environment", Environment { environment_vars })
}

/// Replaces all variables: an object of names and values, or `{environment_vars: {…}}`.
#[utoipa::path(put, path = "/containers/{id}/env", tag = "containers", operation_id = "replace_environment", request_body = BTreeMap<String, String>, params(("id" = String, Path)),
    responses((status = 200, description = "All variables", body = Envelope<EnvironmentChanged>)))]
pub async fn replace(State(app): State<Shared>, who: Identity, Id(id): Id<ContainerId>, input: Input<Object>) -> Reply<EnvironmentChanged> {
    let all = variables(input.body)?;
    changed(app.alter(who, id, move |host, id| host.set_environment(&input.caller, id, EnvironmentChange::Replace(all))).await?)
}

/// Sets some variables. The others keep their values.
#[utoipa::path(patch, path = "/containers/{id}/env", tag = "containers", operation_id = "merge_environment", request_body = BTreeMap<String, String>, params(("id" = String, Path)),
    responses((status = 200, description = "All variables", body = Envelope<EnvironmentChanged>)))]
pub async fn merge(State(app): State<Shared>, who: Identity, Id(id): Id<ContainerId>, input: Input<Object>) -> Reply<EnvironmentChanged> {
    let some = variables(input.body)?;
    changed(app.alter(who, id, move |host, id| host.set_environment(&input.caller, id, EnvironmentChange::Merge(some))).await?)
}

type Object = BTreeMap<String, serde_json::Value>;

fn variables(mut body: Object) -> hoody_state::Result<BTreeMap<String, String>> {
    // If it is an object it is the wrapper; anything else is a variable of this name.
    if let Some(serde_json::Value::Object(inner)) = body.get("environment_vars") {
        body = inner.clone().into_iter().collect();
    }
    body.into_iter()
        .map(|(name, value)| match value {
            serde_json::Value::String(s) => Ok((name, s)),
            other => Err(invalid(&format!("environment_vars.{name}"), format!("{other} is not a string"))),
        })
        .collect()
}

/// The value of a variable.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct Value {
    /// At most 32,768 bytes.
    value: String,
}

/// Sets a variable. PATCH does the same.
#[utoipa::path(method(put, patch), path = "/containers/{id}/env/{key}", tag = "containers", operation_id = "set_environment_variable", request_body = Value, params(("id" = String, Path), ("key" = String, Path)),
    responses((status = 200, description = "All variables", body = Envelope<EnvironmentChanged>)))]
pub async fn set(State(app): State<Shared>, who: Identity, path: Named<ContainerId>, input: Input<Value>) -> Reply<EnvironmentChanged> {
    let Named(id, key) = path;
    let value = input.body.value;
    if value.len() > VALUE_LIMIT {
        return Err(invalid("value", format!("{} bytes are too many: at most {VALUE_LIMIT}", value.len())).into());
    }
    changed(app.alter(who, id, move |host, id| host.set_environment(&input.caller, id, EnvironmentChange::Set(key, value))).await?)
}

/// Removes a variable.
#[utoipa::path(delete, path = "/containers/{id}/env/{key}", tag = "containers", operation_id = "remove_environment_variable", params(("id" = String, Path), ("key" = String, Path)),
    responses((status = 200, description = "All variables", body = Envelope<EnvironmentChanged>)))]
pub async fn remove(State(app): State<Shared>, who: Identity, path: Named<ContainerId>, input: Input<Nothing>) -> Reply<EnvironmentChanged> {
    let Named(id, key) = path;
    changed(app.alter(who, id, move |host, id| host.set_environment(&input.caller, id, EnvironmentChange::Remove(key))).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hoody_state::Code;

    #[test]
    fn only_an_object_is_the_wrapper_of_the_variables() {
        let read = |text: &str| variables(serde_json::from_str(text).unwrap());
        let one = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        assert_eq!(read(r#"{"environment_vars":{"A":"1"}}"#).unwrap(), one("A", "1"));
        assert_eq!(read(r#"{"environment_vars":"A=1"}"#).unwrap(), one("environment_vars", "A=1"));
        assert_eq!(read(r#"{"environment_vars":null}"#).unwrap_err().code(), Code::ValidationError);
    }
}
