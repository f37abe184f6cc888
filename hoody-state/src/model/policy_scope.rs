use crate::id::{ContainerId, ProjectId};
use std::fmt;

/// What a snapshot policy is set on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyScope {
    /// The server: for the containers for which nothing nearer is set.
    Server,
    /// A project: for its containers that have no policy of their own.
    Project(ProjectId),
    /// One container.
    Container(ContainerId),
}

impl PolicyScope {
    /// Its word on the wire: `server`, `project` or `container`.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            PolicyScope::Server => "server",
            PolicyScope::Project(_) => "project",
            PolicyScope::Container(_) => "container",
        }
    }

    /// The id of the project or container; empty for the server.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            PolicyScope::Server => "",
            PolicyScope::Project(id) => id.as_str(),
            PolicyScope::Container(id) => id.as_str(),
        }
    }
}

impl fmt::Display for PolicyScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PolicyScope::Server => f.write_str("the server"),
            PolicyScope::Project(id) => write!(f, "project {id}"),
            PolicyScope::Container(id) => write!(f, "container {id}"),
        }
    }
}
