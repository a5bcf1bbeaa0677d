-- Columns that the role can select, of the relations whose oids are in $1. From pg_catalog, because
-- information_schema.columns knows neither type oids nor modifiers and reads every column of the database to give one table's.
SELECT a.attrelid, a.attnum, a.attname::text, a.atttypid, a.atttypmod, {attgenerated}
  FROM pg_catalog.pg_attribute a
 WHERE a.attrelid = ANY ($1)
   AND a.attnum > 0
   AND NOT a.attisdropped
   AND pg_catalog.has_column_privilege(a.attrelid, a.attnum, 'SELECT')
 ORDER BY a.attrelid, a.attnum
