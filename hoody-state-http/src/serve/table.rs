//! The open connections, limited in total and for each address. An idle connection without a token is closed to make room for a new one.

use super::pace::Pace;
use crate::slots::Load;
use hoody_state::id::ContainerId;
use hoody_state::{Code, Error};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A connection that was idle for this long can be closed to make room. A newer one may be about to send its request.
const IDLE: Duration = Duration::from_secs(1);

/// Where a connection comes from, for the limit of each address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Address {
    /// One IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 network of 64 bits: usually one subscriber.
    V6([u8; 8]),
    /// The UNIX socket.
    Socket,
    /// The socket of the container with this id.
    Container(ContainerId12),
}

/// The twelve bytes of a container's id.
pub type ContainerId12 = [u8; 12];

impl Address {
    /// The socket of a container.
    #[must_use]
    pub fn of_container(id: &ContainerId) -> Self {
        let digit = |b: u8| (b as char).to_digit(16).and_then(|d| u8::try_from(d).ok()).unwrap_or(0);
        let mut bytes = [0; 12];
        for (byte, two) in bytes.iter_mut().zip(id.as_str().as_bytes().chunks_exact(2)) {
            *byte = digit(two[0]) << 4 | digit(two[1]);
        }
        Address::Container(bytes)
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(v4) => Address::V4(v4),
            IpAddr::V6(v6) => {
                let mut network = [0; 8];
                network.copy_from_slice(&v6.octets()[..8]);
                Address::V6(network)
            }
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::V4(v4) => v4.fmt(f),
            Address::V6(network) => {
                let mut octets = [0; 16];
                octets[..8].copy_from_slice(network);
                write!(f, "{}/64", std::net::Ipv6Addr::from(octets))
            }
            Address::Socket => f.write_str("socket"),
            Address::Container(id) => {
                f.write_str("container ")?;
                id.iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
        }
    }
}

/// The open connections of one kind.
#[derive(Debug)]
pub struct Table {
    name: &'static str,
    limit: usize,
    each: usize,
    state: Mutex<State>,
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    rows: HashMap<u64, Row>,
    by: HashMap<Address, usize>,
}

#[derive(Debug)]
struct Row {
    address: Address,
    pace: Arc<Pace>,
}

/// A connection in the table. Dropping it removes it.
#[derive(Debug)]
pub struct Place {
    table: Arc<Table>,
    id: u64,
}

impl Table {
    /// A table for `limit` connections in total, and `each` of one address.
    #[must_use]
    pub fn new(name: &'static str, limit: usize, each: usize) -> Arc<Self> {
        Arc::new(Table { name, limit, each: each.min(limit), state: Mutex::default(), refused: AtomicU64::new(0) })
    }

    /// Adds a connection.
    ///
    /// # Errors
    /// `address_limit`, `too_many_connections`.
    pub fn admit(self: &Arc<Self>, address: Address, pace: &Arc<Pace>) -> Result<Place, Error> {
        let mut state = self.lock();
        if state.by.get(&address).copied().unwrap_or(0) >= self.each && !state.displace(Some(address)) {
            let code = if self.each == self.limit { Code::TooManyConnections } else { Code::AddressLimit };
            return Err(self.refuse(code, format!("{} {} of {address} are open", self.each, self.name)));
        }
        if state.rows.len() >= self.limit && !state.displace(None) {
            return Err(self.refuse(Code::TooManyConnections, format!("{} {} are open", self.limit, self.name)));
        }
        let id = state.next;
        state.next += 1;
        state.rows.insert(id, Row { address, pace: Arc::clone(pace) });
        *state.by.entry(address).or_default() += 1;
        drop(state);
        Ok(Place { table: Arc::clone(self), id })
    }

    fn refuse(&self, code: Code, what: String) -> Error {
        self.refused.fetch_add(1, Ordering::Relaxed);
        Error::new(code, format!("{what}, which is the limit: close some, or try again in a moment"))
    }

    /// How many are open.
    #[must_use]
    pub fn load(&self) -> Load {
        Load { used: self.lock().rows.len(), limit: self.limit, each: self.each, refused: self.refused.load(Ordering::Relaxed) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Closes the connection (of this address) that has been idle for the longest time. Returns false if there is none to close.
    fn displace(&mut self, of: Option<Address>) -> bool {
        let waiting = self.rows.iter().filter(|(_, r)| of.is_none_or(|a| a == r.address));
        let oldest = waiting.filter_map(|(id, r)| Some((r.pace.unknown_and_idle_since()?, *id))).min();
        match oldest {
            Some((since, id)) if since.elapsed() >= IDLE => {
                if let Some(row) = self.remove(id) {
                    row.pace.close();
                }
                true
            }
            _ => false,
        }
    }

    fn remove(&mut self, id: u64) -> Option<Row> {
        let row = self.rows.remove(&id)?;
        if let Some(n) = self.by.get_mut(&row.address) {
            *n -= 1;
            if *n == 0 {
                self.by.remove(&row.address);
            }
        }
        Some(row)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let row = self.table.lock().remove(self.id);
        drop(row);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::limits::Limits;

    fn at(host: u8) -> Address {
        IpAddr::from([10, 0, 0, host]).into()
    }

    fn pace() -> Arc<Pace> {
        Pace::new(&Limits::default())
    }

    #[tokio::test]
    async fn an_address_has_its_share_and_a_silent_connection_gives_way() {
        let table = Table::new("connections", 3, 2);
        let (a, b, c) = (at(1), at(2), at(3));
        let silent = pace();
        let first = table.admit(a, &silent).unwrap();
        let busy = pace();
        let guard = busy.request();
        let second = table.admit(a, &busy).unwrap();
        assert_eq!(table.admit(a, &pace()).unwrap_err().code(), Code::AddressLimit, "the first has only just come");
        tokio::time::sleep(IDLE).await;
        let third = table.admit(a, &pace()).unwrap();
        assert!(silent.is_closed() && !busy.is_closed());
        let known = pace();
        known.authenticated();
        let fourth = table.admit(b, &known).unwrap();
        tokio::time::sleep(IDLE).await;
        let fifth = table.admit(c, &busy).unwrap();
        assert_eq!(table.admit(c, &pace()).unwrap_err().code(), Code::TooManyConnections, "one that is busy or known does not give way");
        assert_eq!(table.load(), Load { used: 3, limit: 3, each: 2, refused: 2 });
        drop((first, second, third, fourth, fifth, guard));
        assert_eq!(table.load().used, 0);
        assert!(table.lock().by.is_empty());
    }

    #[test]
    fn a_container_is_an_address_of_its_own() {
        let id: ContainerId = "65f0c0ffee00000000000002".parse().unwrap();
        assert_eq!(Address::of_container(&id).to_string(), format!("container {id}"));
        assert_ne!(Address::of_container(&id), Address::of_container(&ContainerId::generate()));
    }

    #[test]
    fn neighbours_in_one_network_are_one_address() {
        let of = |t: &str| Address::from(t.parse::<IpAddr>().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_eq!(of("2001:db8::1").to_string(), "2001:db8::/64");
    }
}
