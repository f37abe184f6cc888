use super::{Tx, ms, time};
use crate::error::{Code, Error, Result};
use crate::model::{Image, PageRequest};
use crate::name::ImageName;
use crate::units::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};

const COLUMNS: &str = "id, name, size, files, source, created_ms, name = (SELECT value FROM meta WHERE key = 'default_image')";

fn row(r: &Row<'_>) -> rusqlite::Result<Result<Image>> {
    let (id, name): (String, String) = (r.get(0)?, r.get(1)?);
    let (size, files, source, created): (u64, Option<u64>, String, i64) = (r.get(2)?, r.get(3)?, r.get(4)?, r.get(5)?);
    let is_default: Option<bool> = r.get(6)?;
    Ok((|| {
        let name: ImageName = name.parse()?;
        Ok(Image {
            id: id.parse()?,
            alias: name.clone(),
            image_name: name.clone(),
            name,
            size: Bytes(size),
            files,
            source,
            is_default: is_default.unwrap_or(false),
            created_at: time(created),
        })
    })())
}

pub(crate) fn by_name(c: &Connection, name: &ImageName) -> Result<Option<Image>> {
    c.prepare_cached(&format!("SELECT {COLUMNS} FROM images WHERE name = ?1"))?.query_row([name.as_str()], row).optional()?.transpose()
}

/// As the clients write it; `None` is the default image.
pub(crate) fn resolve(c: &Connection, name: Option<&str>) -> Result<Image> {
    let Some(name) = name else {
        let default: Option<String> = c.query_row("SELECT value FROM meta WHERE key = 'default_image'", [], |r| r.get(0)).optional()?;
        let found = default.map(|d| d.parse::<ImageName>().and_then(|n| by_name(c, &n))).transpose()?.flatten();
        return found.ok_or_else(|| Error::new(Code::ImageNotFound, "there is no image yet: import one with PUT /api/v1/images/NAME"));
    };
    for n in ImageName::candidates(name) {
        if let Some(i) = by_name(c, &n)? {
            return Ok(i);
        }
    }
    let shown: String = name.chars().take(100).collect();
    Err(Error::new(Code::ImageNotFound, format!("there is no image {shown:?}: GET /api/v1/images lists them, PUT /api/v1/images/NAME imports one")))
}

pub(crate) fn all(c: &Connection) -> Result<Vec<Image>> {
    let mut s = c.prepare_cached(&format!("SELECT {COLUMNS} FROM images"))?;
    s.query_map([], row)?.map(|r| r?).collect()
}

pub(crate) fn page(c: &Connection, req: &PageRequest) -> Result<(Vec<Image>, u64)> {
    let column = super::projects::sort(req, &[("id", "id"), ("name", "name"), ("created_at", "created_ms"), ("size", "size")])?;
    let total: u64 = c.query_row("SELECT count(*) FROM images", [], |r| r.get(0))?;
    let mut s = c.prepare_cached(&format!("SELECT {COLUMNS} FROM images {}", super::projects::order(column, "id", req)))?;
    let rows = s.query_map([], row)?.map(|r| r?).collect::<Result<Vec<_>>>()?;
    Ok((rows, total))
}

/// The error for a name that is taken.
pub(crate) fn exists(name: &ImageName) -> Error {
    Error::new(Code::ImageExists, format!("there is an image {name} already: delete it first, or choose another name"))
}

impl Tx<'_> {
    /// Adds an image; the first one becomes the default.
    pub(crate) fn insert_image(&mut self, i: &Image) -> Result<()> {
        let n = self.conn.execute(
            "INSERT OR IGNORE INTO images(id, name, size, files, source, created_ms) VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
            params![i.id.as_str(), i.name.as_str(), i.size.0, i.files, i.source, ms(i.created_at)],
        )?;
        if n == 0 {
            return Err(exists(&i.name));
        }
        self.conn.execute("INSERT OR IGNORE INTO meta(key, value) VALUES('default_image', ?1)", [i.name.as_str()])?;
        self.emit("image.created", "image", i.id.as_str(), None, serde_json::json!({ "id": i.id, "name": i.name }))
    }

    /// Takes an image out; if it was the default, the newest that is left becomes it.
    pub(crate) fn remove_image(&mut self, i: &Image) -> Result<()> {
        self.conn.execute("DELETE FROM images WHERE id = ?1", [i.id.as_str()])?;
        self.forget_image(&i.name)?;
        self.conn.execute("DELETE FROM meta WHERE key = 'default_image' AND value = ?1", [i.name.as_str()])?;
        self.conn.execute("INSERT OR IGNORE INTO meta(key, value) SELECT 'default_image', name FROM images ORDER BY created_ms DESC LIMIT 1", [])?;
        self.emit("image.deleted", "image", i.id.as_str(), None, serde_json::json!({ "id": i.id, "name": i.name }))
    }
}
