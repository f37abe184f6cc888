//! Opening a host on this machine.

use super::backends::Machine;
use super::builder::HostBuilder;
use super::config::HostConfig;
use super::unmount::note_end_of_uptime;
use crate::catalog::Catalog;
use crate::error::Result;
use crate::host::Host;
use crate::pool::layout;
use std::sync::Arc;

impl Host {
    /// Opens this machine's pool (making, mounting and growing it as needed), finishes or undoes what a crash left, adopts what runs.
    ///
    /// # Errors
    /// Those of [`Host::builder`] and of [`HostBuilder::open`].
    pub fn open(config: &HostConfig) -> Result<Host> {
        Self::builder(config)?.open()
    }

    /// This machine, but with backends or settings of your own. The pool is open from here on: its lock is held.
    ///
    /// # Errors
    /// Those of [`Pool::open`](crate::pool::Pool::open) and of the catalog.
    pub fn builder(config: &HostConfig) -> Result<HostBuilder> {
        let machine = Machine::open(config)?;
        let catalog = Catalog::open(&machine.pool.root().join(layout::CATALOG))?;
        if machine.writable && machine.pool.freshly_mounted() {
            // Nothing can have survived, whatever uptime of the machine the catalog speaks of.
            note_end_of_uptime(&catalog)?;
        }
        let record = machine.pool.record().clone();
        let mut builder = HostBuilder::on(machine, catalog, config.server(&record))?.settings(config.settings.clone()).id_base(record.id_base);
        if let Some(transport) = &config.transport {
            builder = builder.transport(Arc::clone(transport));
        }
        #[cfg(feature = "crash-hooks")]
        if let Some(hook) = crate::op::crash::from_environment() {
            builder = builder.hook(hook);
        }
        Ok(builder)
    }
}
