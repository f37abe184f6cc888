//! Making other servers known.

use super::asking::Peers;
use crate::catalog::Durability;
use crate::catalog::idempotency::IdempotencyKey;
use crate::catalog::peers::{self, PeerRow};
use crate::error::{Code, Error, Result};
use crate::id::PeerId;
use crate::model::{NewPeer, Peer, Server};
use crate::transfer::{Answer, PeerAddress, VERSION};
use std::net::IpAddr;

/// The address of a peer: https, or http on this machine.
fn check_url(url: &str) -> Result<String> {
    let bad =
        |why: &str| Error::new(Code::ValidationError, format!("url: {why}: write https://HOST:PORT, or http://127.0.0.1:PORT for a server on this machine"));
    let url = url.trim().trim_end_matches('/');
    let (scheme, rest) = url.split_once("://").ok_or_else(|| bad("it has no scheme"))?;
    if rest.is_empty() || rest.len() > 500 || rest.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, '/' | '?' | '#' | '@')) {
        return Err(bad("it is no host and port"));
    }
    let host = rest.rsplit_once(':').filter(|(_, p)| p.parse::<u16>().is_ok()).map_or(rest, |(h, _)| h);
    let loopback = host == "localhost" || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match scheme {
        "https" => Ok(url.to_owned()),
        "http" if loopback => Ok(url.to_owned()),
        "http" => Err(bad("plain http is for this very machine only")),
        _ => Err(bad("its scheme is not https")),
    }
}

/// Checks what was said of a new peer; how it is reached. Without a name it is called by its address.
fn check(new: NewPeer) -> Result<PeerAddress> {
    let url = check_url(&new.url)?;
    let name = new.name.as_deref().map(str::trim);
    let good = |n: &str| !n.is_empty() && n.chars().count() <= 100 && !n.chars().any(char::is_control);
    if name.is_some_and(|n| !good(n)) {
        return Err(Error::new(Code::ValidationError, "name: 1 to 100 characters, no control characters"));
    }
    if !new.token.starts_with("hdy_") || new.token.len() > 200 {
        return Err(Error::new(
            Code::ValidationError,
            "token: a replication token of that server, made there with `hoody-state-http token create --replication`",
        ));
    }
    if new.ca.as_ref().is_some_and(|ca| ca.len() > 64 << 10 || !ca.contains("-----BEGIN CERTIFICATE-----")) {
        return Err(Error::new(Code::ValidationError, "ca: a certificate in PEM, or none"));
    }
    Ok(PeerAddress { name: name.unwrap_or(&url).to_owned(), url, token: new.token, ca: new.ca })
}

impl Peers {
    /// Makes a peer known, as `Host::add_peer`.
    pub(crate) fn add(&self, key: Option<&IdempotencyKey>, new: NewPeer) -> Result<Peer> {
        if let Some(t) = self.records.replay(key)? {
            return Ok(t);
        }
        let named = new.name.is_some();
        let mut address = check(new)?;
        let server = self.greet(&address)?;
        if !named {
            address.name.clone_from(&server.name);
        }
        let peer = Peer {
            id: PeerId::generate(),
            name: address.name.clone(),
            url: address.url.clone(),
            server_id: server.id,
            server_name: server.name,
            pinned: address.ca.is_some(),
            created_at: self.records.now(),
        };
        if let Some(known) = self.records.read(|c| peers::of_server(c, &peer.server_id))?
            && known.peer.url != peer.url
            && known.peer.name != peer.name
        {
            // Whoever claims to be a server that is known does not take its place by that alone.
            let message = format!(
                "server {} is known already as {:?} at {}: give that name to give it another address, or forget it first",
                peer.server_id, known.peer.name, known.peer.url
            );
            return Err(Error::new(Code::PeerNameInUse, message));
        }
        let row = PeerRow { address, peer };
        self.records.change(key, |tx| {
            tx.put_peer(&row)?;
            Ok(row.peer.clone())
        })
    }

    /// Asks who answers at an address, and whether containers can be copied between that server and this one.
    fn greet(&self, address: &PeerAddress) -> Result<Server> {
        let Answer::Hello { server, version, id_base } = self.ask(address, &self.hello())? else {
            return Err(Error::new(Code::PeerRefused, format!("what answers at {} is no hoody-state server of this version", address.url)));
        };
        if server.id == self.server.id {
            return Err(Error::new(Code::PeerIsSelf, format!("{} is this very server", address.url)));
        }
        if version != VERSION {
            let message = format!("server {} speaks version {version} of replication, this one {VERSION}: bring both to one version", server.name);
            return Err(Error::new(Code::PeerRefused, message));
        }
        if id_base != self.id_base {
            let message = format!(
                "server {} gives its containers the ids from {id_base} on, this one from {}: make the pools of a fleet with one --id-base",
                server.name, self.id_base
            );
            return Err(Error::new(Code::IdBaseDiffers, message));
        }
        Ok(server)
    }

    /// All peers.
    pub(crate) fn all(&self) -> Result<Vec<Peer>> {
        Ok(self.records.read(peers::all)?.into_iter().map(|p| p.peer).collect())
    }

    /// Forgets a peer, by its id, its server's id or its name. Error: `peer_not_found`.
    pub(crate) fn remove(&self, which: &str) -> Result<()> {
        self.records.write(Durability::Disk, |tx| tx.delete_peer(which))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine() {
        for good in ["https://a.example:1", "https://10.0.0.1", "http://127.0.0.1:7878/", "http://localhost:1", "http://[::1]:7"] {
            assert!(check_url(good).is_ok(), "{good}");
        }
        for bad in [
            "http://10.0.0.1:1",
            "http://example:1",
            "ftp://127.0.0.1",
            "127.0.0.1:1",
            "https://",
            "https://a/b",
            "https://u@h",
            "https://a b",
            "http://127.0.0.1.evil:1",
        ] {
            assert_eq!(check_url(bad).unwrap_err().code(), Code::ValidationError, "{bad}");
        }
    }
}
