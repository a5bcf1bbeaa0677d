-- Partitions with their parents, and their row estimates.
SELECT i.inhrelid, i.inhparent, c.relkind, c.reltuples::int8
  FROM pg_catalog.pg_inherits i
  JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
 WHERE c.relispartition
