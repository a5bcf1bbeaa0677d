"""The private server: SQL by psql, what its backends cost, slots, and the statements that a program sent."""

import csv
import os
import re
import subprocess
import time

TICKS = os.sysconf("SC_CLK_TCK")
HOST = "127.0.0.1"


def environment(**settings):
    """The developer's own, without what libpq would take from it."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return dict(plain, TZ="UTC", **settings)


def slot_name(database):
    """The reference's name for a database's slot, so that every program finds it."""
    return f"pipelinewise_{database}"


class Server:
    """A server that this benchmark has for itself."""

    def __init__(self, programs, data, port):
        self.programs, self.data, self.port = programs, data, port
        with open(os.path.join(data, "postmaster.pid"), encoding="ascii") as file:
            self.postmaster = int(file.readline())
        self.own_processes = self.processes()

    def program(self, name, database, *arguments):
        """The command line of one of PostgreSQL's programs."""
        connection = ["-h", HOST, "-p", str(self.port), "-U", "postgres", "-d", database]
        return [os.path.join(self.programs, name), *connection, *arguments]

    def psql(self, database, *arguments):
        return self.program("psql", database, "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", *arguments)

    def run(self, database, *arguments):
        done = subprocess.run(self.psql(database, *arguments), check=True, stdout=subprocess.PIPE, env=environment())
        return done.stdout.decode().strip()

    def sql(self, database, *statements):
        return self.run(database, *(item for statement in statements for item in ("-c", statement)))

    # What backends cost: a postmaster knows the time of every process that it has waited for.

    def processes(self):
        """The postmaster's children."""
        found = set()
        for name in os.listdir("/proc"):
            if name.isdigit() and self.stat(name)[1:2] == [str(self.postmaster)]:
                found.add(int(name))
        return found

    def wait_for_backends(self):
        """Until every backend has ended, so that its time is counted and its slot is free."""
        give_up = time.monotonic() + 60
        while self.processes() - self.own_processes:
            if time.monotonic() > give_up:
                raise TimeoutError(f"backends that do not end: {self.processes() - self.own_processes}")
            time.sleep(0.01)

    def backend_seconds(self):
        """CPU time of all backends that have ended."""
        user, system = self.stat(self.postmaster)[13:15]
        return (int(user) + int(system)) / TICKS

    @staticmethod
    def stat(pid):
        """The fields of /proc/PID/stat from the third on; none if the process is gone."""
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                return file.read().rpartition(")")[2].split()
        except OSError:
            return []

    def temp_bytes(self, database):
        """What queries in this database have written to temporary files so far."""
        return int(self.sql("postgres", f"select temp_bytes from pg_stat_database where datname = '{database}'"))

    # Slots

    def copy_slot(self, database, plugin):
        """A slot that stands where the workload's stands, so that every run reads the same log and none moves it."""
        name = slot_name(database)
        self.wait_for_backends()
        self.sql(database, f"select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = '{name}'",
                 f"select pg_copy_logical_replication_slot('workload_{database}', '{name}', false, '{plugin}')")

    # Statements

    def traced(self, database, action):
        """The statements, with their parameters, that programs other than psql sent to a database meanwhile."""
        path = os.path.join(self.data, "log", "server.csv")
        self.sql(database, f"alter database {database} set log_statement = 'all'",
                 f"alter database {database} set log_replication_commands = on")
        start = os.path.getsize(path)
        action()
        self.wait_for_backends()
        end_mark = f"select 'the trace that began at {start} ends'"
        self.sql(database, end_mark)
        self.sql(database, f"alter database {database} reset log_statement",
                 f"alter database {database} reset log_replication_commands")
        while True:
            with open(path, encoding="utf-8", newline="") as file:
                file.seek(start)
                text = file.read()
            if end_mark in text and text.endswith("\n"):
                break
            time.sleep(0.05)
        rows = [row for row in csv.reader(text.splitlines(keepends=True)) if row[22] != "psql"]
        return [Statement(row[13], row[14]) for row in rows if Statement.is_one(row[13])]


class Statement:
    """A statement as the server's log has it."""

    PREFIX = re.compile(r"(statement|execute [^:]*|received replication command): ")

    @classmethod
    def is_one(cls, message):
        return cls.PREFIX.match(message) is not None

    def __init__(self, message, detail):
        prefix = self.PREFIX.match(message)
        self.prepared = prefix[1].startswith("execute")
        self.sql = message[prefix.end():]
        self.parameters = re.findall(r"\$\d+ = (NULL|'(?:[^']|'')*')", detail)

    def for_psql(self, number):
        """The same, prepared where it was, for a script that psql runs."""
        if not self.prepared:
            return self.sql.rstrip("; \n") + ";\n"
        values = f"({', '.join(self.parameters)})" if self.parameters else ""
        return f"prepare q{number} as {self.sql};\nexecute q{number}{values};\n"

    def plugin_options(self):
        """The options of a START_REPLICATION, as pg_recvlogical takes them."""
        pairs = re.findall(r"\"([^\"]+)\" '((?:[^']|'')*)'", self.sql.partition("(")[2])
        return [item for name, value in pairs for item in ("-o", f"{name}={value}")]
