-- The types whose oids are in $1, and those they are made of. $2: the schemas of the role's own search_path.
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
       -- As a session with the role's own search_path has it: a type that is found there stands without its schema.
       CASE WHEN n.nspname <> 'pg_catalog' AND n.nspname::text = (
         SELECT s.name
           FROM pg_catalog.unnest('pg_catalog'::text || $2::text[]) WITH ORDINALITY s(name, position)
           JOIN pg_catalog.pg_namespace sn ON sn.nspname::text = s.name
           JOIN pg_catalog.pg_type st ON st.typnamespace = sn.oid AND st.typname = coalesce(e.typname, t.typname)
          ORDER BY s.position
          LIMIT 1)
       THEN pg_catalog.substr(spelt.name, pg_catalog.length(pg_catalog.quote_ident(n.nspname::text)) + 2)
       ELSE spelt.name END AS sql_name,
       class.schema AS operand_schema,
       class.name AS operand_name,
       operators.schema AS operator_schema,
       operators.names AS operator_names
  FROM wanted w
  JOIN pg_catalog.pg_type t ON t.oid = w.oid
  JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
  LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND t.typoutput = 'pg_catalog.array_out'::pg_catalog.regproc
 CROSS JOIN LATERAL pg_catalog.format_type(t.oid, NULL) spelt(name)
  -- The default operator class for btree (403), as CREATE INDEX finds it: of the type, of one that it is binary coercible to, or
  -- of all types of its kind (operand_name is null then).
  LEFT JOIN LATERAL (
    SELECT c.opcfamily, c.opcintype, i.typname::text AS name, ins.nspname::text AS schema
      FROM pg_catalog.pg_opclass c
      LEFT JOIN pg_catalog.pg_type i ON i.oid = c.opcintype AND i.typtype <> 'p'
      LEFT JOIN pg_catalog.pg_namespace ins ON ins.oid = i.typnamespace
     WHERE c.opcmethod = 403 AND c.opcdefault AND t.typtype <> 'd'
       AND (c.opcintype = t.oid
            OR c.opcintype = CASE WHEN t.typoutput = 'pg_catalog.array_out'::pg_catalog.regproc THEN 2277
                                  WHEN t.typtype = 'e' THEN 3500
                                  WHEN t.typtype = 'r' THEN 3831
                                  WHEN t.typtype = 'm' THEN 4537
                                  WHEN t.typtype = 'c' THEN 2249 END
            OR EXISTS (SELECT FROM pg_catalog.pg_cast b
                        WHERE b.castsource = t.oid AND b.casttarget = c.opcintype
                          AND b.castmethod = 'b' AND b.castcontext = 'i'))
     ORDER BY c.opcintype = t.oid DESC, coalesce(i.typispreferred, false) DESC, c.opcintype
     LIMIT 1
  ) class ON true
  LEFT JOIN LATERAL (
    SELECT pg_catalog.min(ons.nspname::text) AS schema,
           pg_catalog.array_agg(o.oprname::text ORDER BY a.amopstrategy) AS names
      FROM pg_catalog.pg_amop a
      JOIN pg_catalog.pg_operator o ON o.oid = a.amopopr
      JOIN pg_catalog.pg_namespace ons ON ons.oid = o.oprnamespace
     WHERE a.amopfamily = class.opcfamily AND a.amoppurpose = 's'
       AND a.amoplefttype = class.opcintype AND a.amoprighttype = class.opcintype
    -- an operator class that takes its operators from several schemas is no extension's
    HAVING pg_catalog.count(DISTINCT ons.oid) = 1
  ) operators ON true
