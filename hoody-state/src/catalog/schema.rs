use crate::error::{Code, Error, Result};
use rusqlite::Connection;

/// Each step takes the catalog one version on. Never change one that has been released: add another.
const MIGRATIONS: &[&str] = &["
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE projects(id TEXT PRIMARY KEY, alias TEXT NOT NULL UNIQUE, color TEXT NOT NULL, max_containers INTEGER,
  created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL) STRICT;
CREATE TABLE containers(id TEXT PRIMARY KEY, project_id TEXT NOT NULL, name TEXT NOT NULL, status TEXT NOT NULL, status_ms INTEGER NOT NULL,
  ssh_public_key TEXT UNIQUE, spec TEXT NOT NULL, state TEXT NOT NULL, created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL) STRICT;
CREATE UNIQUE INDEX container_names ON containers(project_id, name) WHERE status <> 'deleting';
CREATE TABLE snapshots(container_id TEXT NOT NULL, name TEXT NOT NULL, alias TEXT, created_ms INTEGER NOT NULL, last_used_ms INTEGER, expires_ms INTEGER,
  size INTEGER NOT NULL, generation INTEGER NOT NULL, parent TEXT, description TEXT, labels TEXT NOT NULL, pinned TEXT, consistency TEXT NOT NULL,
  PRIMARY KEY(container_id, name)) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX snapshot_aliases ON snapshots(container_id, alias) WHERE alias IS NOT NULL;
CREATE INDEX snapshot_expiry ON snapshots(expires_ms) WHERE expires_ms IS NOT NULL;
CREATE TABLE images(id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, size INTEGER NOT NULL, files INTEGER, source TEXT NOT NULL, created_ms INTEGER NOT NULL) STRICT;
CREATE TABLE status_logs(seq INTEGER PRIMARY KEY, id TEXT NOT NULL, container_id TEXT NOT NULL, from_status TEXT, to_status TEXT NOT NULL,
  transition_ms INTEGER NOT NULL, duration_ms INTEGER, triggered_by TEXT NOT NULL, metadata TEXT) STRICT;
CREATE INDEX status_logs_of ON status_logs(container_id, seq);
CREATE TABLE events(seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, event_type TEXT NOT NULL, resource_type TEXT NOT NULL, resource_id TEXT NOT NULL,
  project_id TEXT, payload TEXT NOT NULL, created_ms INTEGER NOT NULL) STRICT;
CREATE TABLE operations(id TEXT PRIMARY KEY, kind TEXT NOT NULL, resource_type TEXT NOT NULL, resource_id TEXT NOT NULL, project_id TEXT, intent TEXT NOT NULL,
  status TEXT NOT NULL, error_code TEXT, error_message TEXT, created_ms INTEGER NOT NULL, finished_ms INTEGER) STRICT;
CREATE INDEX open_operations ON operations(resource_id) WHERE status = 'running';
CREATE INDEX operations_by_age ON operations(created_ms);
CREATE TABLE idempotency(scope TEXT NOT NULL, key TEXT NOT NULL, fingerprint BLOB NOT NULL, operation_id TEXT, answer TEXT, created_ms INTEGER NOT NULL,
  PRIMARY KEY(scope, key)) STRICT, WITHOUT ROWID;
CREATE TABLE reclaim(volume_id INTEGER PRIMARY KEY, what TEXT NOT NULL, place TEXT, created_ms INTEGER NOT NULL) STRICT;
CREATE TABLE tokens(id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, hash BLOB NOT NULL UNIQUE, prefix TEXT NOT NULL, projects TEXT, read_only INTEGER NOT NULL,
  created_ms INTEGER NOT NULL) STRICT;
", "
CREATE TABLE shares(id TEXT PRIMARY KEY, source_container_id TEXT NOT NULL, source_path TEXT NOT NULL, target_container_id TEXT, target_project_id TEXT,
  readwrite INTEGER NOT NULL, alias TEXT, label TEXT, description TEXT, enabled INTEGER NOT NULL, message TEXT, expires_at INTEGER,
  expiry_notified INTEGER NOT NULL, created_by TEXT NOT NULL, created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL) STRICT;
CREATE UNIQUE INDEX share_places ON shares(source_container_id, source_path, coalesce(target_container_id, ''), coalesce(target_project_id, ''));
CREATE INDEX shares_with_container ON shares(target_container_id) WHERE target_container_id IS NOT NULL;
CREATE INDEX shares_with_project ON shares(target_project_id) WHERE target_project_id IS NOT NULL;
CREATE INDEX share_expiry ON shares(expires_at) WHERE expires_at IS NOT NULL;
CREATE TABLE share_overrides(share_id TEXT NOT NULL, container_id TEXT NOT NULL, id TEXT NOT NULL, mount INTEGER NOT NULL, created_ms INTEGER NOT NULL,
  updated_ms INTEGER NOT NULL, PRIMARY KEY(share_id, container_id)) STRICT, WITHOUT ROWID;
", "
ALTER TABLE tokens ADD COLUMN replication INTEGER NOT NULL DEFAULT 0;
CREATE TABLE peers(id TEXT PRIMARY KEY, server_id TEXT NOT NULL UNIQUE, name TEXT NOT NULL UNIQUE, server_name TEXT NOT NULL, url TEXT NOT NULL, token TEXT NOT NULL,
  ca TEXT, created_ms INTEGER NOT NULL) STRICT;
CREATE TABLE copies_elsewhere(container_id TEXT PRIMARY KEY, server_id TEXT NOT NULL, project_id TEXT NOT NULL, created_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;
", "
ALTER TABLE tokens ADD COLUMN peer_server_id TEXT;
ALTER TABLE copies_elsewhere ADD COLUMN source_id TEXT;
", "
ALTER TABLE tokens ADD COLUMN host_network INTEGER NOT NULL DEFAULT 0;
", "
ALTER TABLE projects ADD COLUMN disk INTEGER;
", include_str!("history.sql"), include_str!("policies.sql")];

/// Brings the catalog to this version.
///
/// # Errors
/// `catalog_too_new` for a catalog of a later version; nothing is changed.
pub(super) fn migrate(conn: &mut Connection) -> Result<()> {
    let tx = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let version: i64 = tx.query_row("PRAGMA user_version", [], |r| r.get(0))?;
    let version = usize::try_from(version).unwrap_or(usize::MAX);
    if version > MIGRATIONS.len() {
        return Err(Error::new(
            Code::CatalogTooNew,
            format!("the catalog is of version {version}, this program knows {}: use a newer hoody-state", MIGRATIONS.len()),
        ));
    }
    for (i, sql) in MIGRATIONS.iter().enumerate().skip(version) {
        tx.execute_batch(sql)?;
        tx.pragma_update(None, "user_version", i64::try_from(i + 1).unwrap_or(i64::MAX))?;
    }
    tx.commit()?;
    Ok(())
}
