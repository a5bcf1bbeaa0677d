-- Partitions with their parents, their row estimates, and, of leaves alone, the columns that the log holds of an old row:
-- null for all of them, none where it has nothing that identifies the row. Last the names of those whose rows are in no log.
SELECT i.inhrelid, i.inhparent, c.relkind, c.reltuples::int8,
       CASE WHEN c.relreplident <> 'f' THEN ARRAY(
         SELECT a.attname::text
           FROM pg_catalog.pg_index x
          -- indkey holds INCLUDE columns too, indclass has one entry per key column only
          CROSS JOIN LATERAL pg_catalog.generate_series(0, pg_catalog.array_length(x.indclass::oid[], 1) - 1) k
           JOIN pg_catalog.pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[k]
          WHERE x.indrelid = c.oid AND x.indisvalid AND x.indimmediate
            AND CASE c.relreplident WHEN 'd' THEN x.indisprimary WHEN 'i' THEN x.indisreplident ELSE false END
          ORDER BY a.attnum) END,
       CASE WHEN c.relkind = 'f' OR c.relkind = 'r' AND c.relpersistence <> 'p' THEN pg_catalog.format('%I.%I', n.nspname, c.relname) END
  FROM pg_catalog.pg_inherits i
  JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relispartition
