//! Hosts on this machine, and hosts over other backends: the only module that names concrete backends.
//!
//! [`Host::open`](crate::Host::open) gives a host with all that this machine has. [`Host::builder`](crate::Host::builder) gives this machine with some parts
//! exchanged. [`HostBuilder::new`] gives a host over other backends alone, and [`Host::in_memory`](crate::Host::in_memory) one without any machine.

mod assemble;
mod backends;
mod builder;
mod choice;
mod config;
mod freezer;
mod inspect;
mod memory;
mod open;
mod tokens;
mod unmount;

pub use builder::HostBuilder;
pub use config::HostConfig;
pub use freezer::freezer;
pub use tokens::TokenStore;
