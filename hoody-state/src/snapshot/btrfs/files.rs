//! Names of one volume that are brought into another, by reflink.

use super::BtrfsStore;
use crate::error::{Code, Result};
use crate::id::OperationId;
use crate::snapshot::{FilesRequest, SnapshotStore, StagedFiles, Volume};
use crate::tree::staged::{Staged, settle};
use crate::tree::{Root, TreePath};

impl StagedFiles for Staged<'_> {
    fn stage(&mut self, path: &TreePath) -> Result<usize> {
        Staged::stage(self, path)
    }

    fn place(&mut self, number: usize) -> Result<()> {
        Staged::place(self, number)
    }
}

impl BtrfsStore {
    pub(super) fn begin_files<'a>(&'a self, request: FilesRequest<'a>) -> Result<Box<dyn StagedFiles + 'a>> {
        let FilesRequest { from, into, staging, options, allow, go_on } = request;
        let roots = (Root::new(self.existing(from)?), Root::new(self.existing(into)?));
        let barrier = Box::new(|| self.barrier());
        Ok(Box::new(Staged::begin(self.mount(), roots, staging.as_str(), options, allow, go_on, barrier)?))
    }

    pub(super) fn end_files(&self, into: &Volume, staging: &OperationId) -> Result<()> {
        match self.open(into) {
            Ok(root) => settle(self.mount(), &Root::new(root), staging.as_str()),
            Err(e) if e.code() == Code::VolumeNotFound => Ok(()),
            Err(e) => Err(e),
        }
    }
}
