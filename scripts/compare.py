"""What the comparisons with other taps share. Standard library only."""

import json
import os
import re
import signal
import subprocess
import tempfile
import time
from datetime import datetime, timezone
from decimal import Decimal

ABSENT = type("Absent", (), {"__repr__": lambda self: "absent"})()


class Database:
    """SQL by psql."""

    def __init__(self, psql, host, port, name):
        self.psql, self.host, self.port, self.name = psql, host, port, name

    def on(self, name):
        return Database(self.psql, self.host, self.port, name)

    def run(self, *arguments):
        command = [self.psql, "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1"]
        command += ["-h", self.host, "-p", self.port, "-U", "postgres", "-d", self.name, *arguments]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.decode()

    def sql(self, *statements):
        return self.run(*(item for statement in statements for item in ("-c", statement)))

    def rows(self, table):
        return lines(self.sql(f'select row_to_json(t) from "{table}" t'))

    def slot(self, name):
        self.sql(f"select pg_create_logical_replication_slot('{name}', 'wal2json')")


def fixture(database, name, dbname):
    database.sql(f"create database {dbname} encoding 'UTF8' template template0")
    database.on(dbname).run("-f", f"fixtures/{name}/setup.sql", "-f", f"fixtures/{name}/rows.sql")


class Failed(Exception):
    """A tap that ended with another exit code than 0."""


class Program:
    """A tap: its name, its executable, and the directory for the files of its runs."""

    def __init__(self, name, program, work):
        self.name, self.program, self.work = name, program, work
        self.ended_by = ""

    def start(self, files, *arguments):
        """Starts it with these files; their names are the options."""
        directory = tempfile.mkdtemp(dir=self.work)
        command = [self.program]
        for name, value in files.items():
            path = os.path.join(directory, name + ".json")
            with open(path, "w", encoding="utf-8") as file:
                file.write(dump(value))
            command += ["--" + name, path]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        environment.update(HOME=directory, TZ="UTC")
        self.log = os.path.join(directory, "log")
        with open(self.log, "wb") as log:
            return subprocess.Popen(command + list(arguments), stdout=subprocess.PIPE, stderr=log, env=environment)

    def output(self, files, *arguments):
        process = self.start(files, *arguments)
        output = process.communicate(timeout=120)[0].decode()
        if process.returncode != 0:
            raise Failed(f"{self.name} ends with exit code {process.returncode}: {self.reason()}")
        return output

    def reason(self):
        with open(self.log, encoding="utf-8", errors="replace") as log:
            lines = [line for line in log.read().splitlines() if line and not line.startswith("CONTEXT:")]
        critical = [line for line in lines if "level=CRITICAL" in line or "level=ERROR" in line]
        # `CRITICAL 'schema'` says less than the exception does.
        return " | ".join(dict.fromkeys(line.split("message=")[-1].strip() for line in (critical + lines[-1:])))

    def interrupted(self, files, count):
        """A run that gets a SIGTERM after so many lines. What it wrote on the way down was read, too."""
        process = self.start(files)
        read = [process.stdout.readline() for _ in range(count)]
        process.send_signal(signal.SIGTERM)
        # Its pipe is full, so that it can do nothing but heed the signal.
        time.sleep(0.5)
        read += process.stdout.read().split(b"\n")
        process.wait()
        self.ended_by = process.returncode
        messages = []
        for line in read:
            try:
                messages.append(parse(line))
            except ValueError:
                # Half a line: a target fails on it, after it has taken what came before.
                break
        return messages


def lines(text):
    """Lines of JSON. splitlines() would take a U+2028 inside a value for the end of one."""
    return [parse(line) for line in text.split("\n") if line]


def parse(text):
    return json.loads(text, parse_float=Decimal)


def dump(value):
    """JSON; a Decimal of a bookmark as the digits that it came with."""
    digits = []

    def default(number):
        digits.append(str(number))
        return f"<digits {len(digits) - 1}>"

    text = json.dumps(value, default=default)
    return re.sub(r'"<digits (\d+)>"', lambda match: digits[int(match[1])], text)


def columns(catalog):
    """The SQL types of all columns, by stream."""
    types = {}
    for entry in catalog["streams"]:
        items = (item for item in entry["metadata"] if item["breadcrumb"])
        types[entry["tap_stream_id"]] = {
            item["breadcrumb"][1]: item["metadata"].get("sql-datatype", "") for item in items
        }
    return types


def instant(value):
    """An RFC 3339 time in UTC, `2020-01-01T00:00:00+00:00`, whatever its offset; None for anything else."""
    if not isinstance(value, str):
        return None
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", value)
    if not match:
        return None
    offset = "+00:00" if match[4] == "Z" else match[4]
    fraction = (match[3] or ".0")[:7].ljust(7, "0")
    try:
        return datetime.fromisoformat(match[1] + "T" + match[2] + fraction + offset).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None


def moment(text):
    """The instant of a day or a timestamp as a tap or PostgreSQL prints it, in UTC where it has no offset."""
    text = text.replace(" ", "T") if len(text) > len("2020-01-01") else text + "T00:00:00"
    return instant(text) or instant(text + ":00") or instant(text + "+00:00")


def is_number(value):
    return isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)


def equal(ours, theirs):
    if is_number(ours) and is_number(theirs):
        # A float stands for NaN or an infinity, which JSON doesn't have.
        return not isinstance(ours, float) and not isinstance(theirs, float) and ours == theirs
    return type(ours) is type(theirs) and ours == theirs


def same(ours, theirs):
    """Whether two values are equal, or the same instant in two forms."""
    return equal(ours, theirs) or (instant(ours) is not None and instant(ours) == instant(theirs))


def differences(ours, theirs, path=(), agree=same):
    """The leaves in which two values differ."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in list(theirs) + [key for key in ours if key not in theirs]:
            yield from differences(ours.get(key, ABSENT), theirs.get(key, ABSENT), path + (key,), agree)
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, pair in enumerate(zip(ours, theirs)):
            yield from differences(*pair, path + (index,), agree)
    elif not agree(ours, theirs):
        yield path, ours, theirs


def as_double(ours, theirs):
    return is_number(ours) and is_number(theirs) and float(ours) == float(theirs)


class Report:
    """Counts and prints. The same difference is printed once for each stream and column."""

    def __init__(self, other):
        """`other` is what the other tap is called."""
        self.other = other
        self.unexpected, self.meant, self.compared, self.printed = 0, {}, 0, set()

    def difference(self, where, row, what):
        if row is None:
            self.unexpected += 1
        else:
            self.meant[row] = self.meant.get(row, 0) + 1
            if (where, row) in self.printed:
                return
            self.printed.add((where, row))
        print(f"{'UNEXPECTED' if row is None else row:<30}  {where}: {what}")

    def value(self, where, row, path, ours, theirs):
        at = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")
        self.difference(where, row, f"{at}: {short(ours)}, {self.other} {short(theirs)}")

    def verdict(self, what, differs=""):
        self.compared += 1
        if differs:
            self.unexpected += 1
        print(f"{'UNEXPECTED' if differs else 'ok':<10}  {what}{': ' if differs else ''}{differs}", flush=True)


def short(value):
    text = str(value) if isinstance(value, Decimal) or value is ABSENT else dump(value)
    return text if len(text) <= 100 else text[:100] + "…"


def comparable(message):
    """A message without what varies from run to run, whose presence still counts."""
    message = dict(message)
    for key, good in (("version", is_number), ("time_extracted", instant)):
        if key in message and good(message[key]):
            message[key] = "any"
    return message


def identity(message, keys):
    """What tells a message from its neighbours: the row that a RECORD is about."""
    row = message.get("record", {})
    found = [row.get(key) for key in keys.get(message.get("stream"), [])]
    return message["type"], message.get("stream"), dump(found), bool(row.get("_sdc_deleted_at"))


class Target:
    """A model of a target: upserts by key, deletes, versions, and the state to start the next run from."""

    def __init__(self):
        self.rows, self.keys, self.state = {}, {}, None

    def take(self, output):
        for message in output:
            stream = message.get("stream")
            table = self.rows.setdefault(stream, {}) if stream else None
            if message["type"] == "SCHEMA":
                self.keys[stream] = message["key_properties"]
            elif message["type"] == "RECORD":
                record = message["record"]
                key = dump([record[name] for name in self.keys[stream]])
                if record.get("_sdc_deleted_at"):
                    table.pop(key, None)
                else:
                    # A column that is absent was not changed.
                    row = dict(table.get(key, (0, {}))[1], **record)
                    table[key] = (message.get("version"), row)
            elif message["type"] == "ACTIVATE_VERSION":
                old = [key for key, (version, _) in table.items() if version != message["version"]]
                for key in old:
                    del table[key]
            elif message["type"] == "STATE":
                self.state = message["value"]

    def compare(self, database, table, deleted=True):
        """What is wrong with a table, in a few words. Without `deleted`, rows too many are still to be deleted."""
        held = [row for _, row in self.rows.get(f"public-{table}", {}).values()]
        held, wanted = ({dump(row["id"]): plain(row) for row in rows} for rows in (held, database.rows(table)))
        missing = [wanted[key] for key in wanted if key not in held]
        surplus = [held[key] for key in held if deleted and key not in wanted]
        wrong = [(held[key], wanted[key]) for key in wanted if key in held and held[key] != wanted[key]]
        found = (("missing", missing), ("surplus", surplus), ("different", wrong))
        return ", ".join(f"{len(rows)} {what} rows, such as {rows[0]}" for what, rows in found if rows)


def plain(row):
    """A row in one spelling; a numeric of two places as what it was before the reference made a double of it."""
    values = {}
    for name, value in row.items():
        if name.startswith("_sdc_"):
            continue
        if isinstance(value, Decimal):
            value = round(value, 2)
        elif isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\d", value):
            value = moment(value)
        values[name] = str(value)
    return values


