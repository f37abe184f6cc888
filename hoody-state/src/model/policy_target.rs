use crate::id::{ContainerId, ProjectId};
use std::fmt;

/// What a snapshot policy is set on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyTarget {
    /// The server: for the containers for which nothing nearer is set.
    Server,
    /// A project: for its containers that have no policy of their own.
    Project(ProjectId),
    /// One container.
    Container(ContainerId),
}

impl PolicyTarget {
    /// Its word on the wire: `server`, `project` or `container`.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            PolicyTarget::Server => "server",
            PolicyTarget::Project(_) => "project",
            PolicyTarget::Container(_) => "container",
        }
    }

    /// The id of the project or container; empty for the server.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            PolicyTarget::Server => "",
            PolicyTarget::Project(id) => id.as_str(),
            PolicyTarget::Container(id) => id.as_str(),
        }
    }
}

impl fmt::Display for PolicyTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PolicyTarget::Server => f.write_str("the server"),
            PolicyTarget::Project(id) => write!(f, "project {id}"),
            PolicyTarget::Container(id) => write!(f, "container {id}"),
        }
    }
}
