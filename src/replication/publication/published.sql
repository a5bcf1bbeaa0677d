-- What the publications named in $1 publish of the tables whose oids are in $2, of their partitions and of what they are partitions
-- of: a row each, and one without a table for a publication that publishes none of them. pg_publication_tables says the same, but opens
-- every published table of the database: it waits for a lock on any of them, and fails where one is dropped meanwhile.
-- {schema}: whether the publication p has the schema of c. Columns that only newer catalogs have are read through jsonb.
WITH RECURSIVE below(oid) AS (
  SELECT pg_catalog.unnest($2::oid[])
  UNION
  SELECT c.oid
    FROM below
    JOIN pg_catalog.pg_inherits i ON i.inhparent = below.oid
    JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid AND c.relispartition
), above(oid) AS (
  SELECT pg_catalog.unnest($2::oid[])
  UNION
  SELECT i.inhparent
    FROM above
    JOIN pg_catalog.pg_class c ON c.oid = above.oid AND c.relispartition
    JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid
), lineage(oid, ancestor) AS (
  SELECT oid, oid FROM (SELECT oid FROM below UNION SELECT oid FROM above) relation
  UNION
  SELECT l.oid, i.inhparent
    FROM lineage l
    JOIN pg_catalog.pg_class c ON c.oid = l.ancestor AND c.relispartition
    JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid
), ancestry AS (
  SELECT l.oid, pg_catalog.array_agg(l.ancestor) AS ancestors
    FROM lineage l
   WHERE l.ancestor <> l.oid
   GROUP BY l.oid
), publication AS (
  SELECT p.oid, p.pubname, p.puballtables, p.pubinsert, p.pubupdate, p.pubdelete,
         coalesce((pg_catalog.to_jsonb(p) ->> 'pubviaroot')::bool, false) AS via_root,
         coalesce(pg_catalog.to_jsonb(p) ->> 'pubgencols', 'n') IN ('s', 'true') AS generated
    FROM pg_catalog.pg_publication p
   WHERE p.pubname::text = ANY ($1)
), member AS (
  SELECT l.oid, l.ancestor, p.pubname
    FROM lineage l
    JOIN pg_catalog.pg_class c ON c.oid = l.ancestor
   CROSS JOIN publication p
   WHERE p.puballtables OR {schema}
      OR EXISTS (SELECT FROM pg_catalog.pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = c.oid)
), published AS (
  SELECT m.pubname, c.oid, c.relkind, pg_catalog.bool_or(m.ancestor = c.oid) AS itself, pg_catalog.bool_or(m.ancestor <> c.oid) AS above
    FROM member m
    JOIN pg_catalog.pg_class c ON c.oid = m.oid AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
   GROUP BY m.pubname, c.oid, c.relkind
)
SELECT p.pubname::text,
       c.oid,
       p.pubinsert,
       p.pubupdate,
       p.pubdelete,
       p.via_root,
       -- A partition comes under the name of the topmost table that is published, or under its own.
       CASE WHEN p.via_root THEN t.itself AND NOT t.above ELSE t.relkind = 'r' END AS listed,
       ARRAY(SELECT a.attname::text
               FROM pg_catalog.pg_attribute a
              WHERE a.attrelid = c.oid AND pg_catalog.to_jsonb(r) -> 'prattrs' @> pg_catalog.to_jsonb(a.attnum)) AS columns,
       coalesce(pg_catalog.to_jsonb(r) ->> 'prattrs' IS NOT NULL, false) AS has_columns,
       coalesce(pg_catalog.to_jsonb(r) ->> 'prqual' IS NOT NULL, false) AS has_filter,
       p.generated,
       coalesce(y.ancestors, '{}'::oid[]) AS ancestors
  FROM publication p
  LEFT JOIN published t ON t.pubname = p.pubname
  LEFT JOIN pg_catalog.pg_class c ON c.oid = t.oid
  LEFT JOIN ancestry y ON y.oid = c.oid
  -- Columns and filters of a table don't count beside a publication of its schema or of all tables.
  LEFT JOIN pg_catalog.pg_publication_rel r
    ON r.prpubid = p.oid AND r.prrelid = c.oid AND NOT p.puballtables AND NOT {schema}
