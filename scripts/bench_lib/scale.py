"""The tables of --at-scale: whether time per unit and memory stay what they are for a tenth of the work."""

from cases import TAP, Case, Section

# How much more time a unit may take than in a tenth, and how much more memory (MB) the whole.
FLAT, MEMORY = 1.25, 8
# A stream's plan, its bookmark and its part of the catalog (kB).
STREAM = 20

LOAD = """create procedure load(n bigint, batch int) language plpgsql as $$
    declare i bigint := 0;
    begin
      while i < n loop
        insert into t select g, g % 1000, 'note for ' || g, '2026-01-01'::timestamptz + g * interval '1 second'
          from generate_series(i + 1, least(i + batch, n)) g;
        commit;
        i := i + batch;
      end loop;
    end $$"""
TABLE = "create table t(id bigint primary key, n int, note text, at timestamptz)"


class Scale:
    """Builds the tables. Every case is there twice, the first time with a tenth of the work."""

    GROUPS = (("rows",), ("changes",), ("transaction",), ("streams",), ("columns",), ("selection",), ("backlog",))
    # See forget.
    DONE_WITH = {}

    def __init__(self, bench):
        self.bench, self.server, self.tap = bench, bench.server, bench.tap
        self.databases = []

    def build(self, name):
        return getattr(self, name)()

    def section(self, name, title, unit, whole, make, ways, memory=MEMORY):
        """`make(database, n)` fills a database; `ways`: name, the command for (case, database, n), and how many records."""
        section = Section(name, title, [])
        whole = max(100, round(whole * self.bench.scale))
        self.forget()
        # The whole first: a slot has to read through the log of whatever is made after it.
        for n in (whole, whole // 10):
            self.databases.append(f"{name}_{n}")
            self.bench.once(self.databases[-1], lambda database, n=n: make(database, n))
        for way, command, records in ways:
            cases = []
            for n in (whole // 10, whole):
                database = f"{name}_{n}"
                case = f"{way}, {n:,} {unit}"
                before = (lambda d=database: self.server.copy_slot(d, "pgoutput")) if self.has_slot(database) else (lambda: None)
                cases.append(Case(case, TAP, [command(case, database, n)], database, before=before, expected=records(n)))
            tenth, all_ = cases
            section.rows += [(tenth, ""), (all_, tenth.name)]
            section.flat(FLAT, all_.name, tenth.name, unit)
            section.no_larger(memory, all_.name, tenth.name)
        return section

    def forget(self):
        """Drops what the table before was measured on, which takes gigabytes."""
        for database in self.databases:
            self.server.sql("postgres", "select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = "
                            f"'{database}'", f"drop database {database}")
        self.databases = []

    def has_slot(self, database):
        found = self.server.sql(database, f"select 1 from pg_replication_slots where slot_name = 'workload_{database}'")
        return found == "1"

    def fill(self, database, *statements, slot=None):
        """Runs statements; those of `slot` when there is one and a publication of everything."""
        self.server.sql(database, *statements)
        if slot:
            self.server.sql(database, "create publication tap_pub for all tables",
                            f"select pg_create_logical_replication_slot('workload_{database}', 'pgoutput')")
            self.server.sql(database, *slot)
        self.server.sql(database, "vacuum analyze", "checkpoint")

    def full_table(self, table="public-t", columns=None):
        return lambda case, database, n: self.tap.sync(case, database, "FULL_TABLE", table=table, columns=columns)

    def log_based(self, reader, table="public-t", columns=None):
        return lambda case, database, n: self.tap.log_based(case, database, table=table, wal_reader=reader,
                                                            publication_name="tap_pub", columns=columns)

    def rows(self):
        def make(database, n):
            self.fill(database, TABLE, LOAD, f"call load({n}, 100000)")
        return self.section("rows", "FULL_TABLE of many rows", "rows", 20_000_000, make,
                            [("FULL_TABLE", self.full_table(), lambda n: n)])

    def changes(self):
        def make(database, n):
            self.fill(database, TABLE, LOAD, slot=[f"call load({n}, 1000)"])
        return self.section("changes", "many changes", "changes", 10_000_000, make,
                            [(reader, self.log_based(reader), lambda n: n) for reader in ("stream", "bulk")])

    def transaction(self):
        def make(database, n):
            self.fill(database, TABLE, LOAD, slot=[f"call load({n}, {n})"])
        return self.section("transaction", "one transaction of many changes", "changes", 5_000_000, make,
                            [(reader, self.log_based(reader), lambda n: n) for reader in ("stream", "bulk")])

    def streams(self):
        def tables(n, what):
            # A transaction can't hold the locks of all.
            return f"""do $$ begin for i in 1..{n} loop
                execute format('{what}', i); if i % 100 = 0 then commit; end if; end loop; end $$"""

        def make(database, n):
            self.fill(database, tables(n, "create table t%s (id bigint primary key, note text)"),
                      slot=[tables(n, "insert into t%s select g, ''note '' || g from generate_series(1, 10) g")])

        def command(case, database, n):
            catalog = self.tap.all_selected(self.tap.discover(database), "LOG_BASED")
            bookmark = {"last_replication_method": "LOG_BASED", "lsn": 1, "version": 1, "xmin": None}
            state = {"bookmarks": {entry["tap_stream_id"]: bookmark for entry in catalog["streams"]}}
            return self.tap.command(case, database, catalog=catalog, state=state, publication_name="tap_pub",
                                    wal_reader="bulk")
        return self.section("streams", "many LOG_BASED streams, ten changes each", "streams", 5000, make,
                            [("bulk", command, lambda n: 10 * n)], memory=round(4500 * STREAM / 1000))

    def wide(self, rows):
        """Makes a table of n columns, with its rows in the log."""
        def make(database, n):
            columns = ", ".join(f"c{i} int" for i in range(1, n))
            values = ", ".join(f"g + {i}" for i in range(1, n))
            insert = f"insert into t select g, {values} from generate_series(1, {rows}) g"
            self.fill(database, f"create table t(id bigint primary key, {columns})", slot=[insert])
        return make

    def columns(self):
        rows = 20_000
        return self.section("columns", f"many columns, {rows:,} rows", "columns", 1000, self.wide(rows),
                            [("FULL_TABLE", self.full_table(), lambda n: rows),
                             ("bulk", self.log_based("bulk"), lambda n: rows)])

    def selection(self):
        rows, three = 100_000, ["id", "c1", "c2"]
        return self.section("selection", f"three of many columns, {rows:,} rows", "columns", 200, self.wide(rows),
                            [("FULL_TABLE", self.full_table(columns=three), lambda n: rows),
                             ("bulk", self.log_based("bulk", columns=three), lambda n: rows)])

    def backlog(self):
        def make(database, n):
            self.fill(database, TABLE, TABLE.replace("table t(", "table other("), LOAD.replace("into t ", "into other "),
                      "create publication tap_pub for table t",
                      f"select pg_create_logical_replication_slot('workload_{database}', 'pgoutput')",
                      f"call load({n}, 1000)",
                      f"insert into t select g, 1, 'ours', now() from generate_series(1, {n // 100}) g")
        return self.section("backlog", "a backlog of which one change in a hundred is ours", "changes", 2_000_000, make,
                            [(reader, self.log_based(reader), lambda n: n // 100) for reader in ("stream", "bulk")])
