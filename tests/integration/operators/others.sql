-- What another role may put into a schema where everybody may create: whatever the tap's SQL names, if the schema were searched. Each
-- tells the server's log that it was called, and does then what PostgreSQL's own does.
set search_path = pg_catalog;

create function public.loot(what text) returns boolean language plpgsql set search_path = pg_catalog as $$ begin
  raise log 'LOOT of % by %', current_user, what;
  return true;
end $$;

do $$
declare
  o record;
  n integer := 0;
begin
  for o in
    select oprname, format_type(oprleft, null) l, format_type(oprright, null) r, format_type(oprresult, null) result
      from pg_operator join pg_type lt on lt.oid = oprleft join pg_type rt on rt.oid = oprright
     where oprname in ('=', '<>', '<', '<=', '>', '>=', '->', '->>', '?', '||', '-', '+', '~', '~~', '@>', '&&')
       and oprcode <> 0 and (lt.typtype = 'b' or lt.typname in ('anyarray', 'anyenum'))
       and (rt.typtype = 'b' or rt.typname in ('anyarray', 'anyenum'))
    union all
    select name, type, type, 'boolean' from unnest('{=,<>,<,<=,>,>=}'::text[]) name, unnest('{varchar,regproc,regtype,cidr}'::text[]) type
    union all
    values ('->>', 'jsonb', 'jsonb', 'text'), ('=', 'name', 'varchar', 'boolean'), ('=', 'name', 'unknown', 'boolean')
  loop
    n := n + 1;
    begin
      execute format('create function public.op_%s(a %s, b %s) returns %s language plpgsql as %L', n, o.l, o.r, o.result, format(
        'begin perform public.loot(%L); return $1 operator(pg_catalog.%s) $2; end', o.l || o.oprname || o.r, o.oprname));
      execute format('create operator public.%s (leftarg = %s, rightarg = %s, procedure = public.op_%s)', o.oprname, o.l, o.r, n);
    exception when others then null; -- what can't be made can't be called
    end;
  end loop;
  for o in
    select proname, pg_get_function_identity_arguments(p.oid) arguments, format_type(prorettype, null) result,
           (select string_agg('$' || i, ', ') from generate_series(1, pronargs) i) passed
      from pg_proc p
     where pronamespace = 'pg_catalog'::regnamespace and not proretset and provariadic = 0 and proallargtypes is null
       and proname in ('pg_is_in_recovery', 'current_setting', 'set_config', 'to_jsonb', 'array_length', 'pg_relation_size', 'age', 'substr',
         'length', 'quote_ident', 'format_type', 'current_database', 'current_schemas', 'array_to_json', 'lower', 'int8', 'text', 'bool',
         'has_table_privilege', 'has_schema_privilege', 'has_column_privilege', 'has_any_column_privilege', 'pg_has_role', 'octet_length',
         'pg_current_wal_lsn', 'pg_current_wal_flush_lsn', 'pg_current_wal_insert_lsn', 'pg_backend_pid', 'row_security_active')
  loop
    begin
      execute format('create function public.%I(%s) returns %s language plpgsql as %L', o.proname, o.arguments, o.result, format(
        'begin perform public.loot(%L); return pg_catalog.%I(%s); end', o.proname, o.proname, o.passed));
    exception when others then null;
    end;
  end loop;
  for o in select unnest('{text,name,oid,int2,int4,int8,bool,varchar,regproc,jsonb,pg_lsn}'::text[]) name loop
    execute format('create domain public.%I as pg_catalog.%I check (public.loot(%L))', o.name, o.name, 'type ' || o.name);
  end loop;
end $$;

create function public.counted(pg_catalog.int8) returns pg_catalog.int8 language plpgsql as $$ begin
  perform public.loot('count');
  return $1 operator(pg_catalog.+) 1;
end $$;
create aggregate public.count(*) (sfunc = public.counted, stype = pg_catalog.int8, initcond = '0');
