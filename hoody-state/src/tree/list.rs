//! The names of a directory, sorted and in pages.

use super::node::Directory;
use crate::error::Result;
use std::collections::BinaryHeap;

/// A page of names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// In the order of their bytes.
    pub names: Vec<Vec<u8>>,
    /// Whether others come after them.
    pub more: bool,
}

impl Directory {
    /// The first `limit` names after `after`, in the order of their bytes. Memory: that of one page, however many names there are. Time: one pass over the
    /// directory for each page.
    ///
    /// # Errors
    /// Those of the system call.
    pub fn page(&self, after: Option<&[u8]>, limit: usize) -> Result<Page> {
        // The smallest names so far, the largest of them on top.
        let mut smallest: BinaryHeap<Vec<u8>> = BinaryHeap::new();
        let mut more = false;
        self.names(&mut |name| {
            if after.is_some_and(|a| name <= a) {
                return Ok(());
            }
            if smallest.len() == limit {
                more = true;
                if smallest.peek().is_none_or(|largest| name >= largest.as_slice()) {
                    return Ok(());
                }
                smallest.pop();
            }
            smallest.push(name.to_owned());
            Ok(())
        })?;
        Ok(Page { names: smallest.into_sorted_vec(), more })
    }
}
