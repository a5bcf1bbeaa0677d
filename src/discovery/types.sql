-- The types whose oids are in $1, and those they are made of.
WITH RECURSIVE wanted(oid) AS (
  SELECT pg_catalog.unnest($1::oid[])
  UNION
  SELECT CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.typelem END
    FROM wanted w
    JOIN pg_catalog.pg_type t ON t.oid = w.oid
   WHERE t.typtype = 'd' OR t.typoutput = 'pg_catalog.array_out'::pg_catalog.regproc
)
SELECT t.oid,
       t.typname::text,
       n.nspname::text,
       t.typtype,
       -- int2vector and its like have elements too, but print no braces
       t.typoutput = 'pg_catalog.array_out'::pg_catalog.regproc AS is_array,
       t.typelem,
       coalesce(e.typdelim, ',') AS delimiter,
       t.typbasetype,
       t.typtypmod,
       pg_catalog.format_type(t.oid, NULL) AS sql_name
  FROM wanted w
  JOIN pg_catalog.pg_type t ON t.oid = w.oid
  JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
  LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem
