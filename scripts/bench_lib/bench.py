"""The databases that are measured on, and the runs."""

import os

import measure
from cases import PEER
from measure import MEGABYTE, Failed

ROWS, TABLES, SLICE, HOT = 1_000_000, 5_000, 50_000, 20_000


class Bench:
    """Everything that a table needs; what takes long is made once."""

    def __init__(self, directory, fixtures, server, tap, peers, targets, scale):
        self.directory, self.fixtures, self.server, self.scale = directory, fixtures, server, scale
        self.tap, self.peers, self.targets = tap, peers, targets
        self.made = {}

    def once(self, name, make):
        if name not in self.made:
            print(f"Making the database {name}", flush=True)
            self.server.sql("postgres", f"create database {name}")
            self.made[name] = make(name)
            self.server.wait_for_backends()
        return self.made[name]

    def script(self, database, name, **variables):
        arguments = [item for variable, value in variables.items() for item in ("-v", f"{variable}={value}")]
        self.server.run(database, *arguments, "-f", os.path.join(self.fixtures, name))

    def small(self):
        def make(name):
            self.server.sql(name, "create table things (id integer primary key, name text)",
                            "insert into things select g, 'thing ' || g from generate_series(1, 3) g")
        return self.once("small", make)

    def many_tables(self):
        def make(name):
            tables = max(100, round(TABLES * self.scale))
            self.script(name, "many_tables.sql", tables=tables)
            return tables
        return self.once("many", make)

    def orders(self):
        """How many rows and changes there are."""
        return self.once("bench", lambda name: self.load(name, ROWS))

    def orders_for_peers(self):
        """The same once more: pipelinewise-tap-postgres fails on the logical message with which this tap marks the end of
        a log that wal2json does not read."""
        return self.once("bench_peers", lambda name: self.load(name, ROWS))

    def slice(self, name):
        """A small part, for pipelines with a target."""
        return self.once(name, lambda name: self.load(name, SLICE))

    def hot(self):
        """A table whose rows change 20 times."""
        def make(name):
            keys = max(1000, round(HOT * self.scale / 1000) * 1000)
            self.script(name, "hot.sql", keys=keys, slot=f"workload_{name}")
            return {"rows": keys, "changes": 20 * keys}
        return self.once("hot", make)

    def load(self, database, rows):
        # A fifth is updated, in transactions of 1,000.
        rows = max(5000, round(rows * self.scale / 5000) * 5000)
        self.script(database, "workload.sql", rows=rows, slot=f"workload_{database}")
        self.server.sql(database, "create index on orders (created_at)", "vacuum analyze")
        self.server.sql(database, "checkpoint")
        return {"rows": rows - rows // 20, "changes": rows + rows // 5 + rows // 20}

    def end(self):
        """Where the log ends: that of every database is read up to there."""
        return self.server.sql("postgres", "select pg_current_wal_flush_lsn()")

    def drop_slots(self, databases):
        """Of what is no longer read. A slot begins with what the slots beside it hold back of the catalogs, so that the tables of a younger
        one would count as altered since, and their rows be looked up."""
        for database in databases:
            self.server.sql("postgres", "select pg_drop_replication_slot(slot_name) from pg_replication_slots "
                            f"where database = '{database}'")

    # Runs

    def verify(self, case):
        """An untimed run that must have the output that is expected."""
        found = 0

        def count(line):
            nonlocal found
            found += line.count(case.counted)

        case.before()
        measure.run(self.directory, *case.commands, each_line=count)
        if found != case.expected:
            raise Failed(f"{case.name}: {found} instead of {case.expected}")
        case.verified = True

    def measure(self, case):
        case.before()
        self.server.wait_for_backends()
        written = self.server.temp_bytes(case.database)
        self.server.wait_for_backends()
        before = self.server.backend_seconds()
        measured = measure.run(self.directory, *case.commands, each_line=(lambda line: None) if case.first else None)
        self.server.wait_for_backends()
        cost = measured.costs[0]
        case.after()
        run = {"wall": measured.wall - case.waits, "cpu": cost.cpu, "server_cpu": self.server.backend_seconds() - before,
               "peak_mb": cost.peak / MEGABYTE,
               "temp_mb": (self.server.temp_bytes(case.database) - written) / MEGABYTE}
        if case.first:
            run["first"] = measured.first
        if len(measured.costs) > 1:
            run.update(target_cpu=measured.costs[1].cpu, target_peak_mb=measured.costs[1].peak / MEGABYTE)
        case.runs.append({metric: None if value is None else round(value, 4) for metric, value in run.items()})
        return run["wall"]

    def run_in_turn(self, cases, rounds, peer_rounds):
        for case in cases:
            if case.expected is not None and not case.verified:
                self.verify(case)
        for number in range(max(rounds, peer_rounds)):
            for case in cases:
                slow = case.kind == PEER or len(case.commands) > 1
                if number >= (peer_rounds if slow else rounds) or case.failure:
                    continue
                try:
                    walls = [self.measure(case) for _ in range(case.repeat)]
                except Failed as failed:
                    if case.kind != PEER:
                        raise
                    case.failure = failed.reason()
                    self.server.wait_for_backends()
                    print(f"  {number + 1}  {case.name:50} {case.failure}", flush=True)
                    continue
                print(f"  {number + 1}  {case.name:50} " + " ".join(f"{wall:8.3f}" for wall in walls), flush=True)
