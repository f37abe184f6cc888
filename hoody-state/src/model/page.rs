use crate::error::{Code, Error, Result};
use serde::{Deserialize, Serialize};

/// A page of a list, and how it is sorted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest {
    /// From 1.
    pub page: u32,
    /// 1–100.
    pub limit: u32,
    /// A field of the list's own set; checked by the list.
    pub sort_by: Option<String>,
    /// Ascending instead of descending.
    pub ascending: bool,
}

impl PageRequest {
    /// A checked request.
    ///
    /// # Errors
    /// `invalid_page`.
    pub fn new(page: Option<i64>, limit: Option<i64>, default_limit: u32, sort_by: Option<String>, sort_order: Option<&str>) -> Result<Self> {
        let page = page.unwrap_or(1);
        let limit = limit.unwrap_or(i64::from(default_limit));
        let page = u32::try_from(page)
            .ok()
            .filter(|p| *p >= 1)
            .ok_or_else(|| Error::new(Code::InvalidPage, format!("page {page} is out of range: pages start at 1")))?;
        let limit = u32::try_from(limit)
            .ok()
            .filter(|l| (1..=100).contains(l))
            .ok_or_else(|| Error::new(Code::InvalidPage, format!("limit {limit} is out of range: it must be 1 to 100")))?;
        let ascending = match sort_order {
            None | Some("desc") => false,
            Some("asc") => true,
            Some(other) => return Err(Error::new(Code::InvalidPage, format!("sort_order {other:?} is neither asc nor desc"))),
        };
        Ok(PageRequest { page, limit, sort_by, ascending })
    }

    /// The first 100, newest first.
    #[must_use]
    pub fn first() -> Self {
        PageRequest { page: 1, limit: 100, sort_by: None, ascending: false }
    }
}

/// Where a page stands in its list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Pagination {
    /// Rows in all pages.
    pub total: u64,
    /// This page.
    pub page: u32,
    /// Rows a page.
    pub limit: u32,
    /// Pages in all.
    #[serde(rename = "totalPages")]
    pub total_pages: u64,
}

/// One page of rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Paged<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// Where they stand.
    pub pagination: Pagination,
}

impl<T> Paged<T> {
    /// A page out of `total` rows.
    #[must_use]
    pub fn new(rows: Vec<T>, total: u64, req: &PageRequest) -> Self {
        Paged { rows, pagination: Pagination { total, page: req.page, limit: req.limit, total_pages: total.div_ceil(u64::from(req.limit.max(1))) } }
    }
}
