//! Finds the id of what a user names by id, name or PROJECT/NAME.

use crate::context::Context;
use crate::failure::{Failure, Outcome, exit};
use crate::output::rows;
use serde_json::Value;

/// Something with an id and a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub id: String,
    pub name: String,
    /// Its project, to tell things of the same name apart.
    pub place: String,
}

/// Whether this is an id rather than a name.
pub fn is_id(s: &str) -> bool {
    s.len() == 24 && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The id of the one thing that matches. A text in the form of an id is taken as an id.
pub fn pick(what: &str, wanted: &str, all: &[Named]) -> Outcome<String> {
    if is_id(wanted) {
        return Ok(wanted.to_owned());
    }
    let qualified = wanted.rsplit_once('/');
    let matches = |n: &&Named| n.name == wanted || qualified.is_some_and(|(place, name)| n.place == place && n.name == name);
    let found: Vec<&Named> = all.iter().filter(matches).collect();
    match found.as_slice() {
        [one] => Ok(one.id.clone()),
        [] => Err(Failure::new(exit::NOT_FOUND, format!("there is no {what} {wanted:?}: see `hoody-state {what} list`"))),
        several => {
            let list: Vec<String> = several.iter().map(|n| format!("  {}  {}/{}", n.id, n.place, n.name)).collect();
            Err(Failure::new(
                exit::CONFLICT,
                format!("{wanted:?} is the name of {} {what}s; say which by id or as PROJECT/NAME:\n{}", several.len(), list.join("\n")),
            ))
        }
    }
}

/// All pages of a list.
pub fn all_rows(cx: &Context<'_>, path: &str, key: &str) -> Outcome<Vec<Value>> {
    let mut out = Vec::new();
    for page in 1.. {
        let data = cx.client.get(&format!("{path}?limit=100&page={page}"))?;
        let some = rows(&data, key);
        let last = some.is_empty();
        out.extend(some);
        let total = data.pointer("/pagination/total").and_then(Value::as_u64).unwrap_or(0);
        if last || out.len() as u64 >= total {
            break;
        }
    }
    Ok(out)
}

fn field(v: &Value, key: &str) -> String {
    v.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The id of a project, given by id or alias.
pub fn project(cx: &Context<'_>, wanted: &str) -> Outcome<String> {
    if is_id(wanted) {
        return Ok(wanted.to_owned());
    }
    let all: Vec<Named> =
        all_rows(cx, "/projects/", "projects")?.iter().map(|p| Named { id: field(p, "id"), name: field(p, "alias"), place: String::new() }).collect();
    pick("project", wanted, &all)
}

/// The id of a container, given by id, name or PROJECT/NAME.
pub fn container(cx: &Context<'_>, wanted: &str) -> Outcome<String> {
    if is_id(wanted) {
        return Ok(wanted.to_owned());
    }
    // A container's own socket knows it by this word; to another server it is a name.
    if wanted == "self"
        && let Ok(own) = cx.client.get("/containers/self")
        && is_id(&field(&own, "id"))
    {
        return Ok(field(&own, "id"));
    }
    let all: Vec<Named> = all_rows(cx, "/containers/", "containers")?
        .iter()
        .map(|c| Named { id: field(c, "id"), name: field(c, "name"), place: field(c, "project_alias") })
        .collect();
    pick("container", wanted, &all)
}
