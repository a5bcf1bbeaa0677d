-- Partitions with their parents, their row estimates, and whether the log identifies the old rows of a leaf.
SELECT i.inhrelid, i.inhparent, c.relkind, c.reltuples::int8,
       c.relkind <> 'r' OR c.relreplident = 'f' OR EXISTS (
         SELECT FROM pg_catalog.pg_index x
          WHERE x.indrelid = c.oid AND x.indisvalid AND x.indimmediate
            AND CASE c.relreplident WHEN 'd' THEN x.indisprimary WHEN 'i' THEN x.indisreplident ELSE false END)
  FROM pg_catalog.pg_inherits i
  JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
 WHERE c.relispartition
