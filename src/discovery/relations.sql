-- Tables and views that the role can read, one row each: of those that information_schema.tables shows it, which it owns or has
-- some privilege on, the ones of which it can select a column; and materialized views, which information_schema does not know.
-- {scope}: a condition on n and c. Where it names tables, information_schema is not asked: it looks at every table of the
-- database to give one, and shows all that have a column to select.
SELECT c.oid,
       n.nspname::text,
       c.relname::text,
       c.relkind,
       c.reltuples::int8,
       c.relreplident,
       key.columns AS key_columns,
       identity.columns AS identity_columns,
       c.relpersistence = 'p' AS logged,
       pg_catalog.row_security_active(c.oid) AS row_security
  FROM pg_catalog.pg_class c
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
   AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
   AND NOT pg_catalog.pg_is_other_temp_schema(n.oid)
   AND {scope}
   AND pg_catalog.has_any_column_privilege(c.oid, 'SELECT')
   -- a privilege on a table is worth nothing without this
   AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
 ORDER BY n.nspname::text COLLATE "C", c.relname::text COLLATE "C"
