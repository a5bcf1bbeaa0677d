"""The tables: what is measured, against what, with which goals."""

import os
import re

from cases import LIMIT, PEER, TAP, Case, Section
from measure import Failed
from programs import (PATIENCE, TABLE, JsonlTarget, Meltano, MeltanoPostgresTarget, PostgresTarget, Reference,
                      bookmark)
from server import slot_name

DAY = 86400
SMALL_SYNC_REPEAT = 5
PLUGINS = ("pgoutput", "wal2json")


class Sections:
    """Builds the tables, and what has to be there before they can be: databases, traces of the tap's own statements."""

    # Those of a line have cases in common, so that all of them are run in turn.
    GROUPS = (("full_table",), ("stream", "bulk"), ("incremental",), ("discovery",), ("one_table",), ("start",),
              ("hot",), ("end_to_end",), ("batches",))
    # The databases whose slots nobody reads any more after a table.
    DONE_WITH = {"stream": ("bench", "bench_peers"), "bulk": ("bench", "bench_peers"), "hot": ("hot",)}

    def __init__(self, bench):
        self.bench, self.server, self.tap, self.peers = bench, bench.server, bench.tap, bench.peers
        self.shared = {}

    def build(self, name):
        return getattr(self, name)()

    def once(self, name, make):
        """A case that more than one table has."""
        if name not in self.shared:
            self.shared[name] = make()
        return self.shared[name]

    def peer_rows(self, case_name, against, database, make, **more):
        """A row for each peer."""
        rows = []
        for peer in self.peers:
            name = f"{peer.name}{case_name}"
            rows.append((self.once(name, lambda p=peer, n=name: Case(n, PEER, [make(p, n)], database, **more)), against))
        return rows

    # FULL_TABLE

    def full_table(self):
        rows = self.bench.orders()["rows"]
        limit = Case("psql COPY orders", LIMIT, [self.server.psql("bench", "-c", "COPY orders TO STDOUT")], "bench")
        tap = Case("tap, FULL_TABLE", TAP, [self.tap.sync("full table", "bench", "FULL_TABLE")], "bench", expected=rows)
        peers = self.peer_rows(", FULL_TABLE", tap.name, "bench", lambda peer, name: peer.sync(name, "bench", "FULL_TABLE"))
        section = Section("full_table", f"FULL_TABLE, {rows:,} rows", [(limit, ""), (tap, limit.name), *peers])
        section.at_most(1.15, tap.name, limit.name)
        section.faster(25, tap.name, f"{Reference.name}, FULL_TABLE")
        section.memory(32)
        return section

    # LOG_BASED

    def stream(self):
        changes = self.bench.orders()["changes"]
        pairs = [(self.pg_recvlogical(plugin), self.log_based("stream", plugin)) for plugin in PLUGINS]
        rows = [row for limit, tap in pairs for row in ((limit, ""), (tap, limit.name))]
        rows += self.log_based_peers(pairs[1][1].name)
        section = Section("stream", f"LOG_BASED, stream, {changes:,} changes", rows)
        for limit, tap in pairs:
            section.at_most(1.05, tap.name, limit.name)
            section.cpu_share(0.25, tap.name)
        section.memory(32)
        return section

    def bulk(self):
        changes = self.bench.orders()["changes"]
        pairs = [(self.bare_bulk(plugin), self.log_based("bulk", plugin)) for plugin in PLUGINS]
        rows = [row for limit, tap in pairs for row in ((limit, ""), (tap, limit.name))]
        fastest = pairs[0][1].name
        received = [self.pg_recvlogical(plugin) for plugin in PLUGINS]
        rows += [(case, tap.name) for case, (_, tap) in zip(received, pairs)]
        rows += self.log_based_peers(fastest)
        section = Section("bulk", f"LOG_BASED, bulk, {changes:,} changes", rows)
        section.at_most(1.4, fastest, pairs[0][0].name)
        section.faster(2, fastest, received[0].name)
        section.faster(50, fastest, f"{Reference.name}, LOG_BASED")
        section.memory(32)
        return section

    def copy_slot(self, plugin, database="bench"):
        return lambda: self.server.copy_slot(database, plugin)

    def log_based(self, reader, plugin):
        def make():
            command = self.tap.log_based(f"{reader} {plugin}", "bench", wal_reader=reader, publication_name="tap_pub")
            return Case(name, TAP, [command], "bench", before=self.copy_slot(plugin),
                        expected=self.bench.orders()["changes"])
        name = f"tap, {reader}, {plugin}"
        return self.once(name, make)

    def pg_recvlogical(self, plugin):
        def make():
            options = self.statement(self.log_based("stream", plugin), "START_REPLICATION").plugin_options()
            command = self.server.program("pg_recvlogical", "bench", "--slot", slot_name("bench"), "--start", "--no-loop",
                                          "-f", "-", "--endpos", self.bench.end(), *options)
            return Case(f"pg_recvlogical, {plugin}", LIMIT, [command], "bench", before=self.copy_slot(plugin))
        return self.once(f"pg_recvlogical {plugin}", make)

    def bare_bulk(self, plugin):
        def make():
            sql = self.statement(self.log_based("bulk", plugin), "COPY").sql
            # The tap's own end is younger than what others read to.
            sql = re.sub(r"(peek_binary_changes\([^,]*, )'[^']*'", rf"\1'{self.bench.end()}'", sql)
            return Case(f"bare bulk read, {plugin}", LIMIT, [self.server.psql("bench", "-c", sql)], "bench",
                        before=self.copy_slot(plugin))
        return self.once(f"bare bulk {plugin}", make)

    def statements(self, case):
        """What the tap sends in a run, which verifies it as well."""
        return self.server.traced(case.database, lambda: self.bench.verify(case))

    def statement(self, case, start):
        return next(statement for statement in self.statements(case) if statement.sql.startswith(start))

    def log_based_peers(self, against):
        database = "bench_peers"
        return self.peer_rows(", LOG_BASED", against, database, lambda peer, name: peer.log_based(name, database),
                              before=self.copy_slot("wal2json", database), waits=PATIENCE)

    # INCREMENTAL

    def incremental(self):
        self.bench.orders()
        from_time = f"(select max(created_at) from orders) - interval '{round(DAY * self.bench.scale) - 1} s'"
        value, rows = self.server.sql("bench", f"""select to_char({from_time}, 'YYYY-MM-DD"T"HH24:MI:SS"+00:00"'), count(*)
            from orders where created_at >= {from_time}""").split("|")
        state = bookmark(TABLE, last_replication_method="INCREMENTAL", replication_key="created_at",
                         replication_key_value=value, version=1)
        command = self.tap.sync("incremental", "bench", "INCREMENTAL", key="created_at", state=state)
        tap = Case("tap, INCREMENTAL", TAP, [command], "bench", expected=int(rows), repeat=SMALL_SYNC_REPEAT)
        sql = self.statement(tap, "COPY").sql
        limit = Case("psql, the same COPY", LIMIT, [self.server.psql("bench", "-c", sql)], "bench",
                     repeat=SMALL_SYNC_REPEAT)
        section = Section("incremental", f"INCREMENTAL, {int(rows):,} rows by an indexed key",
                          [(limit, ""), (tap, limit.name)])
        section.at_most(1.2, tap.name, limit.name)
        section.memory(32)
        return section

    # Discovery

    def discovery(self):
        tables = self.bench.many_tables()
        command = self.tap.command("many", "many", "--discover")
        tap = Case("tap, discovery", TAP, [command], "many", counted=b'"tap_stream_id":', expected=tables)
        script = os.path.join(self.bench.directory, "discovery.sql")
        with open(script, "w", encoding="utf-8") as file:
            file.writelines(statement.for_psql(number) for number, statement in enumerate(self.statements(tap)))
        limit = Case("psql, the same queries", LIMIT, [self.server.psql("many", "-f", script)], "many")
        peers = self.peer_rows(", discovery", tap.name, "many",
                               lambda peer, name: peer.command(name, "many", "--discover"))
        section = Section("discovery", f"discovery, {tables:,} tables of 20 columns",
                          [(limit, ""), (tap, limit.name), *peers])
        section.seconds(2, tap.name, "wall", "done")
        section.at_most(1.5, tap.name, limit.name)
        return section

    def one_table(self):
        tables = self.bench.many_tables()
        table = "public-t00001"
        whole = self.tap.selected(self.tap.discover("many"), table, "FULL_TABLE")
        single = {"streams": [entry for entry in whole["streams"] if entry["tap_stream_id"] == table]}
        small = {"expected": 100, "first": True, "repeat": SMALL_SYNC_REPEAT}
        alone = Case("tap, a catalog of that table", TAP, [self.tap.command("alone", "many", catalog=single)], "many",
                     **small)
        among = Case("tap, a catalog of all", TAP, [self.tap.command("among", "many", catalog=whole)], "many", **small)
        peers = self.peer_rows(", a catalog of all", among.name, "many",
                               lambda peer, name: peer.sync(name, "many", "FULL_TABLE", table=table), first=True)
        section = Section("one_table", f"sync of one table among {tables:,}",
                          [(alone, ""), (among, alone.name), *peers])
        section.seconds(0.1, alone.name, "first", "first message")
        section.seconds(0.1, among.name, "first", "first message")
        section.memory(32, alone.name)
        return section

    def start(self):
        self.bench.small()
        sync = self.tap.sync("start", "small", "FULL_TABLE", table="public-things")
        tap = Case("tap, small database", TAP, [sync], "small", expected=3, first=True, repeat=SMALL_SYNC_REPEAT)
        peers = self.peer_rows(", small database", tap.name, "small",
                               lambda peer, name: peer.sync(name, "small", "FULL_TABLE", table="public-things"),
                               first=True)
        section = Section("start", "start to first message, small database", [(tap, ""), *peers])
        section.seconds(0.05, tap.name, "first", "first message")
        return section

    # With a target

    def target(self, name):
        return next(target for target in self.bench.targets if target.name == name)

    def peer(self, kind):
        return next((peer for peer in self.peers if isinstance(peer, kind)), None)

    def end_to_end(self):
        """As pipelines are that only swap their tap."""
        size = self.bench.slice("slice")
        reference = self.peer(Reference)
        section = Section("end_to_end", f"with a target, {size['rows']:,} rows or {size['changes']:,} changes", [])
        for target in (self.target(target.name) for target in (JsonlTarget, PostgresTarget)):
            for method in ("FULL_TABLE", "LOG_BASED"):
                tap = self.piped(self.tap, TAP, method, target, "slice", publication_name="tap_pub")
                if reference:
                    peer = self.piped(reference, PEER, method, target, "slice_peers", plugin="wal2json")
                    section.rows.append((peer, tap.name))
                section.rows.append((tap, ""))
        section.memory(32)
        return section

    def batches(self):
        """Records through the pipe and in files, into a target that takes both; its own tap before it."""
        size, target, peer = self.bench.slice("slice"), self.target(MeltanoPostgresTarget.name), self.peer(Meltano)
        section = Section("batches", f"into {target.name}, {size['rows']:,} rows or {size['changes']:,} changes", [])
        for method in ("FULL_TABLE", "LOG_BASED"):
            records = self.piped(self.tap, TAP, method, target, "slice", publication_name="tap_pub")
            files = self.piped(self.tap, TAP, method, target, "slice", "batches", publication_name="tap_pub",
                               **self.tap.batches(method))
            if peer:
                other = self.piped(peer, PEER, method, target, "slice_peers", plugin="wal2json")
                section.rows.append((other, files.name))
                section.faster(3, files.name, other.name)
            section.rows += [(records, files.name), (files, "")]
            section.faster(2, files.name, records.name)
        section.memory(160)
        return section

    def hot(self):
        """A table whose rows change often: all changes, and the last of each row."""
        size = self.bench.hot()
        section = Section("hot", f"{size['rows']:,} rows that change 20 times, into a target", [])
        hot = {"table": "public-hot", "publication_name": "tap_pub"}
        for target in (self.target(target.name) for target in (PostgresTarget, MeltanoPostgresTarget)):
            every = self.piped(self.tap, TAP, "LOG_BASED", target, "hot", **hot)
            last = self.piped(self.tap, TAP, "LOG_BASED", target, "hot", "compacted", compact_changes=True, **hot)
            section.rows += [(every, last.name), (last, "")]
            section.faster(8, last.name, every.name)
        files = self.piped(self.tap, TAP, "LOG_BASED", target, "hot", "compacted, batches", compact_changes=True, **hot,
                           **self.tap.batches("hot"))
        section.rows.append((files, ""))
        section.memory(160)
        return section

    def piped(self, tap, kind, method, target, database, how="", plugin="pgoutput", **settings):
        name = f"{'tap' if kind == TAP else tap.name} → {target.name}, {method}{', ' if how else ''}{how}"
        size = self.bench.made[database] if database in self.bench.made else self.bench.slice(database)
        if method == "FULL_TABLE":
            sync = tap.sync(name, database, method, **settings)
        else:
            sync = tap.log_based(name, database, **settings)
        # The rows are there, as they are in the end; some targets only mark those that are gone.
        which = "hot where n = 20" if database == "hot" else "orders"
        if method == "LOG_BASED" and target.marks_deleted:
            which += f" {'and' if 'where' in which else 'where'} _sdc_deleted_at is null"

        def before():
            target.clear()
            self.server.copy_slot(database, plugin)

        def after():
            held, expected = target.holds(which), size["changes" if target.keeps_changes and method == "LOG_BASED" else "rows"]
            if held != expected:
                raise Failed(f"{name}: the target holds {held} rows instead of {expected}")

        waits = PATIENCE if kind == PEER and method == "LOG_BASED" else 0
        return Case(name, kind, [sync, target.command()], database, before=before, after=after, waits=waits)


NEEDS_PEERS = ("end_to_end", "batches", "hot")
PEERS = {"reference": Reference, "meltano-tap": Meltano}
