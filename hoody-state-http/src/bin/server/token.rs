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
        TokenCommand::Create { pool, name, project, read_only, replication, peer, allow_host_network } => {
            let projects = if project.is_empty() { None } else { Some(project.clone()) };
            let rights = match (read_only, allow_host_network) {
                (true, _) => Rights::ReadOnly,
                (_, true) => Rights::FullAndHostNetwork,
                _ => Rights::Full,
            };
            let (_, secret) = Host::with_tokens(&pool.config()?, |tokens| match replication {
                true => tokens.create_for_peer(name.as_deref(), projects, peer.as_deref()),
                false => tokens.create(name.as_deref(), projects, rights),
            })?;
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

/// One line for a token: id, first characters, rights (of a replication token: the id of its server), projects, time of creation, name. The name is
/// last because it can contain blanks.
fn line(t: &Token) -> String {
    let rights = match (&t.peer, t.replication, t.read_only) {
        (Some(peer), ..) => format!("replication:{peer}"),
        (None, true, _) => "replication:first-use".to_owned(),
        (None, _, true) => "read-only".to_owned(),
        _ if t.host_network => "full+host-network".to_owned(),
        _ => "full".to_owned(),
    };
    let projects = t.projects.as_ref().map_or_else(|| "all".to_owned(), |p| p.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
    format!("{}  {}…  {rights}  {projects}  {}  {}", t.id, t.prefix, hoody_state::clock::rfc3339::format(t.created_at), t.name)
}
