ALTER TABLE operations ADD COLUMN author TEXT;
CREATE INDEX operations_of ON operations(resource_type, resource_id);
CREATE TABLE history(seq INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, container_id TEXT, project_id TEXT, at_ms INTEGER NOT NULL, author TEXT,
  operation_id TEXT, snapshot TEXT, image TEXT, on_line INTEGER NOT NULL, copied INTEGER NOT NULL DEFAULT 0, overwrote INTEGER, copy_of INTEGER, content_generation INTEGER, detail TEXT NOT NULL,
  container_name TEXT, deleted_ms INTEGER) STRICT;
CREATE INDEX history_of_container ON history(container_id, at_ms, seq);
CREATE INDEX history_of_project ON history(project_id, at_ms, seq);
CREATE UNIQUE INDEX history_of_snapshot ON history(container_id, snapshot) WHERE snapshot IS NOT NULL AND deleted_ms IS NULL;
CREATE INDEX history_line ON history(container_id, seq) WHERE on_line = 1;
CREATE INDEX history_images ON history(image) WHERE container_id IS NULL;
CREATE INDEX history_created ON history(project_id, container_id) WHERE kind = 'create';
CREATE INDEX history_overwrote ON history(overwrote) WHERE overwrote IS NOT NULL;
CREATE INDEX history_copies ON history(copy_of) WHERE copy_of IS NOT NULL;
CREATE TABLE history_edges(child INTEGER NOT NULL, nth INTEGER NOT NULL, parent INTEGER NOT NULL, PRIMARY KEY(child, nth)) STRICT, WITHOUT ROWID;
CREATE INDEX history_children ON history_edges(parent);

-- What the catalog of the version before still knows: images, where each container came from, and the snapshots that exist, in the order in which they were made.
INSERT INTO history(kind, at_ms, image, on_line, detail)
  SELECT CASE source WHEN 'snapshot' THEN 'image_from_snapshot' ELSE 'image_import' END, created_ms, name, 0, '{}' FROM images ORDER BY created_ms, id;
INSERT INTO history(kind, container_id, project_id, at_ms, image, on_line, detail)
  SELECT CASE WHEN json_extract(spec, '$.source') IS NULL THEN 'create' ELSE 'copy' END, id, project_id, created_ms,
    CASE WHEN json_extract(spec, '$.source') IS NULL THEN json_extract(spec, '$.image') END, 1,
    CASE WHEN json_extract(spec, '$.source') IS NULL THEN '{}'
      ELSE json_object('source', json_object('server_id', json_extract(spec, '$.origin'), 'container_id', json_extract(spec, '$.source'))) END
  FROM containers ORDER BY created_ms, id;
INSERT INTO history(kind, container_id, project_id, at_ms, snapshot, on_line, copied, content_generation, detail)
  SELECT 'snapshot', s.container_id, c.project_id, s.created_ms, s.name, s.name IS json_extract(c.state, '$.head'),
    json_extract(c.spec, '$.source') IS NOT NULL AND s.created_ms < c.created_ms,
    CASE WHEN json_extract(c.spec, '$.source') IS NULL THEN s.generation END, '{}'
  FROM snapshots s JOIN containers c ON c.id = s.container_id ORDER BY s.created_ms, s.generation, s.name;
-- A container comes from its image, if that is the one which has the name now.
INSERT INTO history_edges(child, nth, parent)
  SELECT h.seq, 0, i.seq FROM history h JOIN history i ON i.container_id IS NULL AND i.image = h.image
  WHERE h.kind = 'create' AND i.at_ms <= h.at_ms;
-- A copy on this server comes from the snapshot that it was last brought up to, if its source still has it.
INSERT INTO history_edges(child, nth, parent)
  SELECT h.seq, 0, a.seq FROM history h JOIN containers c ON c.id = h.container_id JOIN history a ON a.container_id = json_extract(c.spec, '$.source')
    AND a.kind = 'snapshot' AND a.snapshot = json_extract(c.state, '$.synced')
  WHERE h.kind = 'copy' AND json_extract(c.spec, '$.origin') IS NULL AND a.at_ms <= h.at_ms;
-- A snapshot comes from the one that it grew from, or from the beginning of its container, if it is not older than that.
INSERT INTO history_edges(child, nth, parent)
  SELECT h.seq, 0, coalesce(
    (SELECT p.seq FROM history p WHERE p.container_id = s.container_id AND p.snapshot = s.parent AND p.seq <> h.seq AND p.seq < h.seq),
    (SELECT b.seq FROM history b WHERE b.container_id = s.container_id AND b.kind IN ('create', 'copy') AND b.at_ms <= h.at_ms))
  FROM history h JOIN snapshots s ON s.container_id = h.container_id AND s.name = h.snapshot
  WHERE h.kind = 'snapshot' AND (
    EXISTS(SELECT 1 FROM history p WHERE p.container_id = s.container_id AND p.snapshot = s.parent AND p.seq < h.seq)
    OR EXISTS(SELECT 1 FROM history b WHERE b.container_id = s.container_id AND b.kind IN ('create', 'copy') AND b.at_ms <= h.at_ms));
