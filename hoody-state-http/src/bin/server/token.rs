//! `token create`, `token list`, `token revoke`.

use crate::args::{TokenArgs, TokenCommand};
use hoody_state::Result;
use hoody_state::host::Host;
use hoody_state::model::{Rights, Token};

/// Runs the command.
///
/// # Errors
/// When there is no pool, or no such token.
pub fn token(args: &TokenArgs) -> Result<()> {
    match &args.command {
        TokenCommand::Create { pool, name, project, read_only, replication } => {
            let projects = if project.is_empty() { None } else { Some(project.clone()) };
            let rights = match (read_only, replication) {
                (_, true) => Rights::Replication,
                (true, _) => Rights::ReadOnly,
                _ => Rights::Full,
            };
            let (_, secret) = Host::with_tokens(&pool.config()?, |tokens| tokens.create(name.as_deref(), projects, rights))?;
            println!("{secret}");
        }
        TokenCommand::List { pool } => {
            for token in Host::with_tokens(&pool.config()?, |tokens| tokens.list())? {
                println!("{}", line(&token));
            }
        }
        TokenCommand::Revoke { pool, token } => Host::with_tokens(&pool.config()?, |tokens| tokens.revoke(token))?,
    }
    Ok(())
}

/// Id, first characters, rights, projects, when it was made, name (last: it may hold blanks).
fn line(t: &Token) -> String {
    let rights = if t.replication {
        "replication"
    } else if t.read_only {
        "read-only"
    } else {
        "full"
    };
    let projects = t.projects.as_ref().map_or_else(|| "all".to_owned(), |p| p.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
    format!("{}  {}…  {rights}  {projects}  {}  {}", t.id, t.prefix, hoody_state::clock::rfc3339::format(t.created_at), t.name)
}
