-- Tables and views that the role can read, one row each.
-- $1: schemas to look in, or null for all; $2, $3: schema and table names looked for (pairs), or null for all.
WITH visible AS (
  SELECT n.oid AS relnamespace, t.table_name::name AS relname
    FROM information_schema.tables t
    JOIN pg_catalog.pg_namespace n ON n.nspname = t.table_schema::name
   WHERE t.table_schema::text NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
     AND ($1::text[] IS NULL OR t.table_schema::text = ANY ($1))
  UNION ALL -- information_schema does not know materialized views
  SELECT c.relnamespace, c.relname
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
   WHERE c.relkind = 'm'
     AND n.nspname::text NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
     AND ($1::text[] IS NULL OR n.nspname::text = ANY ($1))
)
SELECT c.oid,
       n.nspname::text,
       c.relname::text,
       c.relkind,
       c.reltuples::int8,
       c.relreplident,
       key.columns AS key_columns,
       identity.columns AS identity_columns
  FROM visible v
  JOIN pg_catalog.pg_class c ON c.relnamespace = v.relnamespace AND c.relname = v.relname
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  -- indkey holds INCLUDE columns too, indclass has one entry per key column only
  LEFT JOIN LATERAL (
    SELECT array(SELECT i.indkey[k] FROM pg_catalog.generate_series(0, pg_catalog.array_length(i.indclass::oid[], 1) - 1) k) AS columns
      FROM pg_catalog.pg_index i
     WHERE i.indrelid = c.oid AND i.indisprimary
  ) key ON true
  LEFT JOIN LATERAL (
    SELECT array(SELECT i.indkey[k] FROM pg_catalog.generate_series(0, pg_catalog.array_length(i.indclass::oid[], 1) - 1) k) AS columns
      FROM pg_catalog.pg_index i
     WHERE i.indrelid = c.oid
       AND i.indisvalid AND i.indimmediate -- a deferrable key identifies no row in the log
       AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END
  ) identity ON true
 WHERE c.relkind IN ('r', 'p', 'v', 'm')
   -- a privilege on a table is worth nothing without this
   AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
   AND ($2::text[] IS NULL
        OR (n.nspname::text, c.relname::text) IN (SELECT s, t FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3::text[])) wanted(s, t)))
 ORDER BY n.nspname::text COLLATE "C", c.relname::text COLLATE "C"
