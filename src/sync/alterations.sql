-- What was altered of some tables, and of the partitions below them, by transactions that are not older than one: one row a table.
-- Each fact about a table is a row of a catalog, whose xmin says when it was last written; it stays when the row is frozen.
-- In braces is what `alterations.rs` writes into it: the tables (oid[]), the transaction (xid), the publications that decide what
-- is sent (text[]), and which transactions wrote what publishes c in p as one of its schema's tables.
WITH RECURSIVE tree(stream, oid) AS (
  SELECT o, o FROM pg_catalog.unnest({tables}) o
  UNION
  SELECT tree.stream, i.inhrelid
    FROM tree
    JOIN pg_catalog.pg_class c ON c.oid = tree.oid AND c.relkind = 'p'
    JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid
),
-- Columns. Those that were dropped are in no row that is sent. A system column is written when the table is made, and never
-- again: what was written by the same command was never otherwise. Who tried to delete a row (xmax) has left his command in it.
attributes AS (
  SELECT a.attrelid, a.attnum, a.attname, a.atttypid, a.xmin AS written,
         a.xmin = made.xmin AND a.cmin = made.cmin AND a.xmax::text = '0' AND made.xmax::text = '0' AS as_made
    FROM pg_catalog.pg_attribute a
    JOIN pg_catalog.pg_attribute made ON made.attrelid = a.attrelid AND made.attnum = -1
   WHERE a.attrelid IN (SELECT oid FROM tree) AND a.attnum > 0 AND NOT a.attisdropped
),
-- Types of users, and those that they are made of. Those of the system never change.
types(outer_type, oid) AS (
  SELECT DISTINCT atttypid, atttypid FROM attributes WHERE atttypid >= 16384
  UNION
  SELECT types.outer_type, part.oid
    FROM types
    JOIN pg_catalog.pg_type t ON t.oid = types.oid
    CROSS JOIN LATERAL (
      SELECT t.typelem AS oid UNION ALL SELECT t.typbasetype
      UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid
      UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute a
                 WHERE a.attrelid = t.typrelid AND t.typtype = 'c' AND a.attnum > 0 AND NOT a.attisdropped
    ) part
   WHERE part.oid >= 16384
),
of_types AS (
  SELECT types.outer_type, written.xmin AS written
    FROM types
    CROSS JOIN LATERAL (
      SELECT t.xmin FROM pg_catalog.pg_type t WHERE t.oid = types.oid
      UNION ALL SELECT e.xmin FROM pg_catalog.pg_enum e WHERE e.enumtypid = types.oid
      UNION ALL SELECT a.xmin FROM pg_catalog.pg_type t
                  JOIN pg_catalog.pg_attribute a ON a.attrelid = t.typrelid AND t.typtype = 'c' AND a.attnum > 0
                 WHERE t.oid = types.oid
    ) written(xmin)
),
-- What a table is a partition of counts for it in a publication.
lineage(oid, member) AS (
  SELECT oid, oid FROM tree
  UNION
  SELECT l.oid, i.inhparent
    FROM lineage l
    JOIN pg_catalog.pg_class c ON c.oid = l.member AND c.relispartition
    JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid
),
-- Its place in a publication, and the publication, which has a row of its own for what it publishes.
published(oid, written) AS (
  SELECT l.oid, row.xmin
    FROM lineage l
    JOIN pg_catalog.pg_publication_rel r ON r.prrelid = l.member
    JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid AND p.pubname::text = ANY ({publications})
    -- What is published as soon as it is made misses nothing.
    JOIN pg_catalog.pg_attribute made ON made.attrelid = l.member AND made.attnum = -1
   CROSS JOIN LATERAL (SELECT r.xmin WHERE r.xmin <> made.xmin UNION ALL SELECT p.xmin) row(xmin)
  UNION ALL
  SELECT l.oid, row.xmin
    FROM lineage l
    JOIN pg_catalog.pg_class c ON c.oid = l.member
    JOIN pg_catalog.pg_type t ON t.oid = c.reltype
    JOIN pg_catalog.pg_publication p ON p.pubname::text = ANY ({publications})
   CROSS JOIN LATERAL ({of_schema}) row(xmin)
  UNION ALL
  SELECT tree.oid, p.xmin FROM tree JOIN pg_catalog.pg_publication p ON p.pubname::text = ANY ({publications}) AND p.puballtables
),
facts(oid, what, written, name) AS (
  SELECT attrelid, 'column', written, attname FROM attributes WHERE NOT as_made
  UNION ALL
  SELECT a.attrelid, 'type', t.written, a.attname FROM attributes a JOIN of_types t ON t.outer_type = a.atttypid
  UNION ALL
  SELECT a.attrelid, 'created', a.xmin, NULL FROM pg_catalog.pg_attribute a
   WHERE a.attrelid IN (SELECT oid FROM tree) AND a.attnum = -1
  UNION ALL
  -- The type of a table's rows follows its name and its schema, and nothing else but its owner.
  SELECT c.oid, 'moved', t.xmin, NULL
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_type t ON t.oid = c.reltype
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = -1
   WHERE c.oid IN (SELECT oid FROM tree)
     AND NOT (t.xmin = a.xmin AND t.cmin = a.cmin AND t.xmax::text = '0' AND a.xmax::text = '0')
  UNION ALL
  SELECT c.oid, 'schema', n.xmin, NULL
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
   WHERE c.oid IN (SELECT oid FROM tree)
  UNION ALL
  -- A key that is given to other columns, or whose columns get another type, is another constraint. REINDEX keeps it.
  SELECT k.conrelid, 'key', d.xmin, NULL
    FROM pg_catalog.pg_constraint k
    JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND d.objid = k.oid
                               AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = k.conrelid
   WHERE k.conrelid = ANY ({tables}) AND k.contype = 'p'
  UNION ALL
  -- A label of an enum that is part of the key.
  SELECT k.conrelid, 'key', t.written, NULL
    FROM pg_catalog.pg_constraint k
    JOIN attributes a ON a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey)
    JOIN of_types t ON t.outer_type = a.atttypid
   WHERE k.conrelid = ANY ({tables}) AND k.contype = 'p'
  UNION ALL
  -- A table is made with a file that has its oid for a name. One that is a publication's by name can't be made unlogged.
  SELECT c.oid, 'file', c.xmin, NULL FROM pg_catalog.pg_class c
   WHERE c.oid IN (SELECT oid FROM tree) AND c.relkind = 'r' AND c.relfilenode <> c.oid
     AND NOT EXISTS (SELECT FROM pg_catalog.pg_publication_rel p
                      WHERE p.prrelid = c.oid AND NOT pg_catalog.age(p.xmin) BETWEEN 0 AND pg_catalog.age({since}))
  UNION ALL
  -- A partition that was a table of its own before: ATTACH PARTITION writes to all columns that it has in the command that makes it one,
  -- and CREATE TABLE … PARTITION OF makes some of them before.
  SELECT i.inhrelid, 'attached', i.xmin, NULL
    FROM pg_catalog.pg_inherits i
    JOIN pg_catalog.pg_attribute made ON made.attrelid = i.inhrelid AND made.attnum = -1
   WHERE i.inhrelid IN (SELECT oid FROM tree) AND i.inhrelid <> ALL ({tables})
     AND NOT (i.xmin = made.xmin AND i.xmax::text = '0' AND EXISTS
       (SELECT FROM pg_catalog.pg_attribute a
         WHERE a.attrelid = i.inhrelid AND a.attnum > 0 AND NOT a.attisdropped AND a.xmin = i.xmin AND a.xmax::text = '0'
           AND a.cmin::text::int8 < i.cmin::text::int8))
  UNION ALL
  SELECT oid, 'published', written, NULL FROM published
),
dated AS (
  SELECT oid, what, written::text::int8 AS written, name,
         pg_catalog.age(written) BETWEEN 0 AND pg_catalog.age({since}) AS young
    FROM facts
),
tables AS (
  SELECT oid,
         pg_catalog.array_agg(what) FILTER (WHERE young) AS what,
         pg_catalog.array_agg(written) FILTER (WHERE young) AS written,
         pg_catalog.array_agg(coalesce(name::text, '')) FILTER (WHERE young) AS names,
         pg_catalog.max(written) FILTER (WHERE what = 'created') AS created_by,
         pg_catalog.max(written) FILTER (WHERE what = 'attached') AS attached_by,
         -- Another number when any of them was written again.
         pg_catalog.sum(written) FILTER (WHERE what IN ('column', 'type')) AS columns_stamp,
         pg_catalog.sum(written) FILTER (WHERE what = 'key') AS key_stamp
    FROM dated
   GROUP BY oid
)
SELECT tree.stream,
       tree.oid,
       pg_catalog.format('%I.%I', n.nspname, c.relname),
       coalesce(tables.what, '{}'),
       coalesce(tables.written, '{}'),
       coalesce(tables.names, '{}'),
       coalesce(tables.created_by, 0),
       tables.attached_by,
       coalesce(tables.columns_stamp, 0)::int8,
       coalesce(tables.key_stamp, 0)::int8
  FROM tree
  JOIN pg_catalog.pg_class c ON c.oid = tree.oid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN tables ON tables.oid = tree.oid
