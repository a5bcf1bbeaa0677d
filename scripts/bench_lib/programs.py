"""The taps and targets: their files, and how they are called."""

import json
import os
import subprocess

from server import HOST, environment, slot_name

# Other taps end only after so many seconds without a message, far more by default.
PATIENCE = 5
TABLE = "public-orders"


def write_json(directory, name, value):
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, name + ".json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file)
    return path


def bookmark(stream, **keys):
    """A state with one stream in it."""
    return {"currently_syncing": None, "bookmarks": {stream: keys}}


class Tap:
    """This tap. Its peers differ in what they are configured with."""

    name = "tap-postgres-rs"
    # How a catalog is given.
    catalog_flag = "--catalog"

    def __init__(self, program, server, directory):
        self.program, self.server, self.directory = program, server, os.path.join(directory, self.name)

    def config(self, database, **settings):
        connection = {"host": HOST, "port": self.server.port, "user": "postgres", "password": "none"}
        return dict(connection, dbname=database, **settings)

    def command(self, case, database, *arguments, catalog=None, state=None, **settings):
        """The command line, with files of its own."""
        directory = os.path.join(self.directory, case.replace(" ", "_"))
        command = [self.program, "--config", write_json(directory, "config", self.config(database, **settings))]
        if catalog is not None:
            command += [self.catalog_flag, write_json(directory, "catalog", catalog)]
        if state is not None:
            command += ["--state", write_json(directory, "state", state)]
        return command + list(arguments)

    def discover(self, database):
        command = self.command("discover", database, "--discover")
        with open(os.path.join(self.directory, "discover", "log"), "wb") as log:
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=log,
                                  env=environment(HOME=self.directory))
        return json.loads(done.stdout)

    def selected(self, catalog, table, method, key=None, columns=None):
        """The catalog with one table selected, or some columns of it."""
        for entry in catalog["streams"]:
            metadata = next(item["metadata"] for item in entry["metadata"] if not item["breadcrumb"])
            metadata["selected"] = entry["tap_stream_id"] == table
            if metadata["selected"]:
                metadata["replication-method"] = method
                if key:
                    metadata["replication-key"] = key
                for item in entry["metadata"] if columns else []:
                    if item["breadcrumb"]:
                        item["metadata"]["selected"] = item["breadcrumb"][1] in columns
        return catalog

    def all_selected(self, catalog, method):
        """The catalog with every table selected."""
        for entry in catalog["streams"]:
            metadata = next(item["metadata"] for item in entry["metadata"] if not item["breadcrumb"])
            metadata.update({"selected": True, "replication-method": method})
        return catalog

    def sync(self, case, database, method, table=TABLE, key=None, columns=None, state=None, **settings):
        """The command line that reads one table."""
        catalog = self.selected(self.discover(database), table, method, key, columns)
        return self.command(case, database, catalog=catalog, state=state, **settings)

    def log_based(self, case, database, table=TABLE, **settings):
        """The command line that reads everything that the slot has: 1 means where it stands."""
        state = bookmark(table, last_replication_method="LOG_BASED", lsn=1, version=1, xmin=None)
        return self.sync(case, database, "LOG_BASED", table=table, state=state, **settings)

    def batches(self, case):
        """The setting that has records go into files."""
        root = os.path.join(self.directory, case.replace(" ", "_"), "batches")
        return {"batch_config": {"storage": {"root": f"file://{root}"}, "batch_size": 100_000}}


class Reference(Tap):
    """pipelinewise-tap-postgres."""

    name = "pipelinewise-tap-postgres"
    catalog_flag = "--properties"

    def config(self, database, **settings):
        return super().config(database, logical_poll_total_seconds=PATIENCE, break_at_end_lsn=True, **settings)


class Meltano(Tap):
    """meltanolabs-tap-postgres."""

    name = "meltanolabs-tap-postgres"

    def config(self, database, **settings):
        config = super().config(database, filter_schemas=["public"], replication_idle_exit_seconds=PATIENCE, **settings)
        config["database"] = config.pop("dbname")
        return config

    def selected(self, catalog, table, method, key=None, columns=None):
        catalog = super().selected(catalog, table, method, key, columns)
        for entry in catalog["streams"]:
            entry["replication_method"] = method
            for item in entry["metadata"]:
                # Columns are selected only if their table is, which it says of all by default.
                item["metadata"].setdefault("selected", True)
        return catalog

    def log_based(self, case, database, table=TABLE, **settings):
        return self.sync(case, database, "LOG_BASED", table=table, replication_slot_name=slot_name(database),
                         default_replication_method="LOG_BASED", **settings)


class JsonlTarget:
    """target-jsonl: files."""

    name = "target-jsonl"
    program = os.path.join("jsonl", "bin", "target-jsonl")
    # Whether it keeps every record, or only each row's last state.
    keeps_changes = True
    # Whether it keeps rows that were deleted, and says so.
    marks_deleted = False

    def __init__(self, pypi, warehouse, directory):
        self.path, self.warehouse = os.path.join(pypi, self.program), warehouse
        self.directory = os.path.join(directory, self.name)

    def config(self):
        return {"destination_path": os.path.join(self.directory, "rows"), "do_timestamp_file": False}

    def command(self):
        return [self.path, "--config", write_json(self.directory, "config", self.config())]

    def clear(self):
        """Forgets what the run before wrote."""
        rows = self.config()["destination_path"]
        os.makedirs(rows, exist_ok=True)
        for name in os.listdir(rows):
            os.remove(os.path.join(rows, name))

    def holds(self, which="orders"):
        """How many rows or records it holds of a table, or of such rows of it."""
        with open(os.path.join(self.config()["destination_path"], f"public-{which}.jsonl"), "rb") as file:
            return sum(1 for _ in file)


class PostgresTarget(JsonlTarget):
    """pipelinewise-target-postgres: a database on a server of its own."""

    name = "pipelinewise-target-postgres"
    program = os.path.join("pipelinewise", "bin", "target-postgres")
    keeps_changes = False

    def config(self):
        return {"host": HOST, "port": self.warehouse.port, "user": "postgres", "password": "none",
                "dbname": "postgres", "default_target_schema": "loaded", "hard_delete": True}

    def clear(self):
        self.warehouse.sql("postgres", "set client_min_messages = warning; drop schema if exists loaded cascade")

    def holds(self, which="orders"):
        return int(self.warehouse.sql("postgres", f"select count(*) from loaded.{which}"))


class MeltanoPostgresTarget(PostgresTarget):
    """meltanolabs-target-postgres."""

    name = "meltanolabs-target-postgres"
    program = os.path.join("meltano", "bin", "target-postgres")
    marks_deleted = True

    def config(self):
        return {"host": HOST, "port": self.warehouse.port, "user": "postgres", "password": "none", "database": "postgres",
                "default_target_schema": "loaded", "hard_delete": True}
