use super::engine::Engined;
use super::lock::Held;
use crate::id::OperationId;
use crate::progress::Registered;

/// An operation that this process works on: its id, what it works on and its locks. While this lives nobody else takes the operation up.
pub(crate) struct Taken<W: Engined> {
    pub id: OperationId,
    pub world: W,
    /// Dropped before `registered`: whoever waits for the end may begin the next change at once.
    pub held: Option<Held>,
    /// Locks that it took on the way.
    pub also: Vec<Held>,
    pub registered: Registered,
}

impl<W: Engined> Taken<W> {
    pub(super) fn new(world: &W, id: OperationId, held: Option<Held>) -> Self {
        let registered = world.engine().registry.add(&id);
        Taken { id, world: world.clone(), held, also: Vec::new(), registered }
    }

    /// After an error that stands for a crash: everything stays as it is.
    pub(super) fn leave(mut self) {
        self.also.drain(..).chain(self.held.take()).for_each(Held::keep);
    }
}
