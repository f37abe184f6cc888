-- Why each snapshot was taken, and which run of a schedule it is.
ALTER TABLE snapshots ADD COLUMN trigger TEXT NOT NULL DEFAULT 'manual';
ALTER TABLE snapshots ADD COLUMN schedule TEXT;
ALTER TABLE snapshots ADD COLUMN scheduled_ms INTEGER;
ALTER TABLE snapshots ADD COLUMN missed INTEGER;
-- The alias that a rolling snapshot had before another took it over.
ALTER TABLE snapshots ADD COLUMN replaced_alias TEXT;
CREATE INDEX snapshots_by_schedule ON snapshots(container_id, schedule, scheduled_ms) WHERE schedule IS NOT NULL;
-- Undo snapshots of the version before: the server chose their names.
UPDATE snapshots SET trigger = 'restore' WHERE alias IS NULL AND description IS NOT NULL
  AND name GLOB 'undo-[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]-[0-9][0-9][0-9][0-9][0-9][0-9]*';

-- scope: server, project or container; id is empty for the server.
CREATE TABLE policies(scope TEXT NOT NULL, id TEXT NOT NULL, policy TEXT NOT NULL, updated_ms INTEGER NOT NULL, PRIMARY KEY(scope, id)) STRICT, WITHOUT ROWID;
-- One row for each schedule that applies to a container. due_ms is the time of the next run by the schedule; next_due_ms is when the runner begins it, which is later by the
-- spread, or by the pause after a failure. last_ms: the time by the schedule of the last run that is done or was skipped.
CREATE TABLE schedules(container_id TEXT NOT NULL, schedule TEXT NOT NULL, next_due_ms INTEGER NOT NULL, due_ms INTEGER NOT NULL, last_ms INTEGER, last_error TEXT,
  failures INTEGER NOT NULL DEFAULT 0, rule TEXT NOT NULL DEFAULT '', PRIMARY KEY(container_id, schedule)) STRICT, WITHOUT ROWID;
CREATE INDEX schedules_due ON schedules(next_due_ms);
-- Containers that were deleted and can be recovered until expires_ms. content: JSON with the rows of the container and its snapshots.
CREATE TABLE trash(id TEXT PRIMARY KEY, project_id TEXT NOT NULL, name TEXT NOT NULL, content TEXT NOT NULL, size INTEGER, deleted_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL) STRICT;
CREATE INDEX trash_expiry ON trash(expires_ms);
CREATE INDEX trash_of_project ON trash(project_id);
