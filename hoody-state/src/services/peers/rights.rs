//! What another server may have done here, by the token that it shows.
//!
//! A replication token belongs to one server. In its name it may order copies of that server's own containers, follow and hand over those copies, and read the
//! containers of which a copy was ordered for that server from here. Nothing else: not the copies of a third server, and not what no copy was ordered of.

use super::asking::Peers;
use crate::catalog::peers::{self, Ordered};
use crate::catalog::{Durability, containers, tokens};
use crate::error::{Code, Error, Result};
use crate::id::{ContainerId, ServerId};
use crate::model::Token;
use crate::transfer::{Request, StreamRequest};

fn denied(why: impl Into<String>) -> Error {
    Error::new(Code::InsufficientPermissions, why)
}

impl Peers {
    /// Whether the token may make this request.
    pub(crate) fn check_request(&self, token: &Token, request: &Request) -> Result<()> {
        let (token, peer) = match (request, self.peer_behind(token)?) {
            (Request::Hello { from }, (token, None)) => return from.as_ref().map_or(Ok(()), |from| self.bind(&token, from)),
            (Request::Hello { from }, (_, Some(peer))) => {
                return match from {
                    Some(from) if *from != peer => Err(denied(format!("this token belongs to server {peer}, not to {from}: make one for that"))),
                    _ => Ok(()),
                };
            }
            (_, (token, Some(peer))) => (token, peer),
            (_, (_, None)) => {
                let message = "this token belongs to no server yet: the server that it was made for adds this one as a peer with it (`hoody-state peer add`)";
                return Err(Error::new(Code::TokenNotBound, message));
            }
        };
        match request {
            Request::Hello { .. } => Ok(()),
            Request::CheckCopy(order) | Request::Copy(order) => {
                if order.server != peer {
                    return Err(denied(format!("server {peer} cannot order copies of the containers of server {}", order.server)));
                }
                if !token.reaches(&order.project) {
                    return Err(denied(format!("the token of server {peer} does not reach project {}: make one that lists it", order.project)));
                }
                match self.records.read(|c| containers::find(c, &order.copy))? {
                    Some(_) => self.check_copy_of(&peer, &order.copy),
                    None => Ok(()),
                }
            }
            Request::State { copy } | Request::Advance { copy, .. } | Request::HandOver { copy, .. } | Request::Discard { copy, .. } => {
                self.check_copy_of(&peer, copy)
            }
            Request::Inventory { container, copy } | Request::Fresh { container, copy, .. } => self.check_source(&token, &peer, container, copy),
        }
    }

    /// Whether the token may have a container's bytes.
    pub(crate) fn check_stream(&self, token: &Token, request: &StreamRequest) -> Result<()> {
        match self.peer_behind(token)? {
            (token, Some(peer)) => self.check_source(&token, &peer, &request.container, &request.copy),
            _ => Err(Error::new(Code::TokenNotBound, "this token belongs to no server yet")),
        }
    }

    /// The token as it is now, and the server it belongs to.
    fn peer_behind(&self, token: &Token) -> Result<(Token, Option<ServerId>)> {
        let now = self.records.read(|c| tokens::get(c, &token.id))?;
        match now {
            Some(now) if now.replication => {
                let peer = now.peer.clone();
                Ok((now, peer))
            }
            _ => Err(denied("this is for other servers: it takes a token made with `hoody-state-http token create --replication`")),
        }
    }

    /// Gives a token to the first server that uses it.
    fn bind(&self, token: &Token, to: &ServerId) -> Result<()> {
        if *to == self.server.id {
            return Ok(());
        }
        if !self.records.write(Durability::Disk, |tx| tx.bind_token(&token.id, to))? {
            return Err(denied("this token belongs to another server"));
        }
        tracing::info!(token = %token.name, server = %to, "a replication token belongs to the server that used it first");
        Ok(())
    }

    /// Refuses what concerns a container here that is not a copy ordered by `peer`.
    fn check_copy_of(&self, peer: &ServerId, copy: &ContainerId) -> Result<()> {
        let row = self.records.read(|c| containers::find(c, copy))?;
        match row {
            Some(row) if row.spec.origin.as_ref() == Some(peer) => Ok(()),
            _ => Err(Error::new(Code::ContainerNotFound, format!("there is no container {copy} that was copied from server {peer}"))),
        }
    }

    /// Refuses to show `peer` a container of which no copy was ordered for it.
    fn check_source(&self, token: &Token, peer: &ServerId, container: &ContainerId, copy: &ContainerId) -> Result<()> {
        let hidden = || Error::new(Code::ContainerNotFound, format!("there is no container {container} of which a copy {copy} was ordered on server {peer}"));
        let (row, ordered) = self.records.read(|c| Ok((containers::find(c, container)?, peers::ordered_copy(c, copy, peer)?)))?;
        if !row.is_some_and(|r| token.reaches(&r.project)) {
            return Err(hidden());
        }
        self.address_of(peer)?;
        match ordered {
            Some(Ordered::Of(source)) if source == *container => Ok(()),
            Some(Ordered::Unknown) => self.records.write(Durability::Disk, |tx| tx.set_copy_source(copy, container)),
            _ => Err(hidden()),
        }
    }
}
