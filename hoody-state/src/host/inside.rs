//! What a server asks that serves the sockets of containers.

use super::{ApiServer, Host};
use crate::catalog::{authors, containers};
use crate::error::Result;
use crate::id::ContainerId;
use crate::model::{Container, Status};
use std::sync::Arc;

impl Host {
    /// Serves the sockets of containers that have one (`api_socket`): those that run now, and each that starts from now on. `None`: nobody serves them any more.
    /// The host keeps `server`, so it must not keep the host.
    pub fn serve_api_sockets(&self, server: Option<Arc<dyn ApiServer>>) {
        self.0.api_sockets.serve(server);
    }

    /// How many snapshots of a container that exist this author has made, as the timeline names authors.
    ///
    /// # Errors
    /// Those of the catalog.
    pub fn snapshots_by(&self, id: &ContainerId, author: &str) -> Result<u64> {
        self.0.read(|c| authors::snapshots_by(c, id, author))
    }

    /// The copies of a container on this server that exist and that this author has made. Looks at every container.
    ///
    /// # Errors
    /// Those of the catalog.
    pub fn copies_by(&self, id: &ContainerId, author: &str) -> Result<Vec<Container>> {
        self.0.read(|c| {
            let mut made = Vec::new();
            for r in containers::all(c, None)? {
                let copied = r.spec.source.as_ref() == Some(id) && r.spec.origin.is_none() && !matches!(r.status, Status::Deleting | Status::Deleted);
                if copied && authors::author_of_copy(c, &r.id)?.as_deref() == Some(author) {
                    made.push(self.0.view.container(c, &r)?);
                }
            }
            Ok(made)
        })
    }
}
