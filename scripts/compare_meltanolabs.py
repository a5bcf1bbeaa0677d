"""The comparison of scripts/compare-meltanolabs, which starts it with what it needs. Standard library only."""

import re
import sys
import tempfile
import time
from decimal import Decimal

from compare import (
    ABSENT, Database, Failed, Program, Report, Target, as_double, columns, comparable, differences, dump, equal, fixture,
    identity, instant, is_number, lines, moment, parse, short,
)

# The other tap ends on an idle slot only after so many seconds.
PATIENCE = 2
# How it is set to copy a table before it reads its changes. Without, it has only what the slot has.
COPYING = {"auto_bootstrap_log_based": True, "log_based_single_connection": True}
# The replication key that its manual asks for.
LSN = "_sdc_lsn"
# What it reads from a table in place of ±infinity: the first day and the last that Python has.
BOUNDS = ("0001-01-01", "9999-12-31", "0001-01-01T00:00:00.000000+00:00", "9999-12-31T23:59:59.999999+00:00")
NUMBERS = ("smallint", "integer", "bigint", "numeric", "real", "double precision")


class Tap(Program):
    """One of the two programs, and what its config has that the other's has not."""

    def __init__(self, name, program, work, settings):
        super().__init__(name, program, work)
        self.settings = settings

    def files(self, database, catalog=None, state=None, **settings):
        config = {"host": database.host, "port": int(database.port), "user": "postgres", "password": "none"}
        config.update(database=database.name, filter_schemas=["public", "Odd Schema"])
        files = {"config": dict(config, replication_idle_exit_seconds=PATIENCE, **self.settings, **settings)}
        files.update({name: value for name, value in (("catalog", catalog), ("state", state)) if value is not None})
        return files

    def discover(self, database, **settings):
        return parse(self.output(self.files(database, **settings), "--discover"))

    def sync(self, database, catalog, state=None, **settings):
        return lines(self.output(self.files(database, catalog, state, **settings)))


def select(catalog, methods):
    """The catalog with these tables selected, as `method` or `(method, replication key)`, all over as Meltano does it."""
    catalog = parse(dump(catalog))
    for entry in catalog["streams"]:
        table = next(item["metadata"] for item in entry["metadata"] if not item["breadcrumb"])
        method = methods.get(entry["table_name"])
        table["selected"] = method is not None
        if method:
            method, key = method if isinstance(method, tuple) else (method, None)
            table["replication-method"] = entry["replication_method"] = method
            if key:
                table["replication-key"] = entry["replication_key"] = key
    return catalog


def last_state(output):
    return [message["value"] for message in output if message["type"] == "STATE"][-1]


# ---------------------------------------------------------------------------------------------- comparison


def elements(text):
    """What PostgreSQL's text of an array holds: texts, None and lists."""
    stack = [[]]
    for brace, quoted, word in re.findall(r'([{}])|("(?:[^"\\]|\\.)*")|([^{},"]+)', text):
        if brace == "{":
            stack.append([])
        elif brace == "}":
            stack[-2].append(stack.pop())
        else:
            stack[-1].append(unquoted(quoted) if quoted else None if word == "NULL" else word)
    return stack[0][0]


def unquoted(text):
    return re.sub(r"\\(.)", r"\1", text[1:-1])


def converted(text, sql_type):
    """What this tap makes of PostgreSQL's text of a value."""
    if sql_type.endswith("[]"):
        return converted_elements(elements(text), sql_type[:-2])
    if sql_type in NUMBERS:
        return Decimal(text) if Decimal(text).is_finite() else None
    if sql_type in ("json", "jsonb"):
        return parse(text)
    if sql_type == "hstore":
        pairs = re.findall(r'("(?:[^"\\]|\\.)*")=>(?:NULL|("(?:[^"\\]|\\.)*"))', text)
        return {unquoted(key): unquoted(value) if value else None for key, value in pairs}
    if sql_type == "boolean":
        return text == "t"
    if sql_type.startswith("timestamp"):
        return moment(text).isoformat(timespec="microseconds")
    if sql_type.startswith("time "):
        clock, fraction, offset = re.fullmatch(r"([\d:]{8})(\.\d+)?([+-].*)?", text).groups(default="")
        clock = "00:00:00" if clock == "24:00:00" else clock
        return clock + (fraction and fraction.ljust(7, "0")) + offset + (":00" if len(offset) == 3 else "")
    return text


def converted_elements(values, sql_type):
    if isinstance(values, list):
        return [converted_elements(value, sql_type) for value in values]
    return None if values is None else converted(values, sql_type)


def log_reason(sql_type, ours, theirs):
    """The row that promises a difference of a changed row's value. Theirs is what wal2json prints."""
    if sql_type == "numeric":
        return "numeric, LOG_BASED" if as_double(ours, theirs) else None
    if ours is not ABSENT and theirs is ABSENT:
        return "unchanged TOAST, LOG_BASED"
    if not isinstance(theirs, str):
        return None
    if sql_type.startswith(("date", "timestamp")) and not sql_type.endswith("[]") and not moment(theirs):
        return "days outside the years 1–9999" if ours in BOUNDS else None
    if not equal(ours, converted(theirs, sql_type)):
        return None
    if sql_type.endswith("[]"):
        return "arrays, LOG_BASED"
    if sql_type in ("json", "jsonb", "hstore"):
        return "json, jsonb, hstore, LOG_BASED"
    return "times, timestamps, LOG_BASED"


def copy_reason(sql_type, ours, theirs):
    """The row that promises a difference of a value that was read from the table."""
    element, array = sql_type.removesuffix("[]"), sql_type.endswith("[]")
    if array and isinstance(theirs, list) and all(isinstance(item, str) for item in theirs):
        return "arrays of bit, money, …" if equal(ours, converted("".join(theirs), sql_type)) else None
    if not isinstance(ours, str) or not isinstance(theirs, str):
        return None
    if element == "interval":
        # In an array it is Python's `1 day, 2:03:04`.
        numbers = [[int(number) for number in re.findall(r"\d+", text)] for text in (ours, theirs)]
        return "interval" if instant(theirs) or array and numbers[0] == numbers[1] else None
    if element in ("tsrange", "tstzrange"):
        return "ranges of times" if bounds(ours) == bounds(theirs) else None
    if element.startswith("timestamp") and moment(ours) == moment(theirs):
        return "timestamps in arrays" if array else "timestamptz"
    return None


def bounds(text):
    return [moment(bound) for bound in re.sub(r'[\[\]()"]', "", text).split(",")]


def record_reason(column, sql_type, logged, ours, theirs):
    if column == "_sdc_deleted_at":
        form = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
        times = [isinstance(value, str) and re.fullmatch(form, value) for value in (ours, theirs)]
        return "deleted rows" if all(times) else None
    if isinstance(ours, str) and is_number(theirs):
        return "domains, oid" if ours == str(theirs) and sql_type not in NUMBERS else None
    return (log_reason if logged else copy_reason)(sql_type, ours, theirs)


def schema_reason(path, sql_type, is_key, ours, theirs):
    """The row that promises a difference of a SCHEMA."""
    if path == ("bookmark_properties",) and ours == [] and theirs in (ABSENT, [LSN]):
        return "bookmark_properties"
    if path in (("schema", "required"), ("schema", "$schema")):
        return "required, $schema" if ours is ABSENT else None
    if path[-1] == "type" and is_key:
        return "keys, LOG_BASED" if theirs == ours + ["null"] else None
    if path[-2:] == ("items", "type"):
        return "NULL in arrays" if ours == theirs + ["null"] else None
    if path[-1] == "maxLength" and ours is ABSENT and not sql_type.startswith("character"):
        return "enums"
    return "comments on columns" if path[-1] == "description" and ours is ABSENT else None


# What this tap's bookmarks have besides.
OWN_KEYS = ("last_replication_method", "version", "lsn", "xmin", "table_oid", "definition")


def state_reason(path, ours, theirs):
    """The row that promises a difference of a STATE."""
    own = path == ("currently_syncing",) or path[0] == "bookmarks" and path[-1] in OWN_KEYS
    without_key = path[-1] == "replication_key" and ours == LSN and theirs is None
    return "state" if without_key or own and theirs is ABSENT else None


class Pair:
    """Both taps over a database, with the same settings."""

    def __init__(self, report, taps, database, **settings):
        self.report, self.taps, self.database, self.settings = report, taps, database, settings
        self.catalogs = {tap: tap.discover(database, **settings) for tap in taps}
        self.types = columns(self.catalogs[taps[0]])
        self.seen = set()

    def tables(self):
        return [entry["table_name"] for entry in self.catalogs[self.taps[0]]["streams"]]

    def slot(self, tap):
        return f"{tap.name}_{self.database.name}"

    def slots(self):
        for tap in self.taps:
            self.database.slot(self.slot(tap))

    def run(self, where, methods, before=None, logged=False, fails=None):
        """Runs both, after the runs `before`, and compares; returns what they wrote. The other may fail if a row says so."""
        outputs = {}
        for tap in self.taps:
            state = last_state(before[tap]) if before and tap in before else None
            try:
                catalog, settings = select(self.catalogs[tap], methods), self.settings
                outputs[tap] = tap.sync(self.database, catalog, state, replication_slot_name=self.slot(tap), **settings)
            except Failed as failed:
                self.report.difference(where, fails if tap is self.taps[1] else None, short(str(failed)))
        if len(outputs) == len(self.taps):
            self.compare(where, methods, logged, *outputs.values())
        return outputs

    def compare(self, where, methods, logged, ours, theirs):
        self.report.compared += len(theirs)
        streams = dict.fromkeys(message["stream"] for message in theirs + ours if "stream" in message)
        for stream in streams:
            mine, others = ([comparable(m) for m in run if m.get("stream") == stream] for run in (ours, theirs))
            self.compare_stream(where, stream, logged, mine, others)
        shapes = [shape(last_state(run)) for run in (ours, theirs)]
        for path, a, b in differences(*shapes, agree=equal):
            self.report.value(where, state_reason(path, a, b), ("state", *path), a, b)

    def compare_stream(self, where, stream, logged, ours, theirs):
        """The messages of a stream, in their order."""
        types, keys = self.types[stream], {m["stream"]: m["key_properties"] for m in theirs if m["type"] == "SCHEMA"}
        bookmarks = next((m.get("bookmark_properties") for m in theirs if m["type"] == "SCHEMA"), None)
        in_stream = f"{where}, {stream}"
        theirs = self.without_repeats(in_stream, theirs)
        if bookmarks and bookmarks != [LSN]:
            theirs = self.nulls_last(in_stream, bookmarks[0], ours, theirs, keys)
        while ours and theirs:
            mine, other = ours[0], theirs[0]
            if identity(mine, keys) != identity(other, keys):
                # Of a changed key the other tells the new row only.
                row = "update that changes the key" if logged and mine.get("record", {}).get("_sdc_deleted_at") else None
                self.report.difference(in_stream, row, f"{short(mine)}, {self.report.other} {short(other)}")
                if row is None:
                    return
                ours.pop(0)
                continue
            for path, a, b in differences(ours.pop(0), theirs.pop(0), agree=equal):
                if path[0] == "record" and len(path) > 1:
                    row = record_reason(path[1], types.get(path[1], ""), logged, a, b)
                    self.report.value(in_stream, row, path, a, b)
                else:
                    column = path[2] if path[:2] == ("schema", "properties") else ""
                    row = schema_reason(path, types.get(column, ""), column in keys[stream], a, b)
                    # Once for all streams.
                    self.report.value(where, row, (stream, *path), a, b)
        for name, rest in (("this tap", ours), (self.report.other, theirs)):
            if rest:
                more = f"{len(rest)} more messages of {name}, the first: {short(rest[0])}"
                self.report.difference(in_stream, None, more)

    def without_repeats(self, where, messages):
        """Without the changes that a run before had already."""
        kept, changes = [], {change(message) for message in messages} - {None}
        for message in messages:
            if change(message) in self.seen:
                self.report.difference(where, "changes again", short(message))
            else:
                kept.append(message)
        self.seen |= changes
        return kept

    def nulls_last(self, where, key, ours, theirs, keys):
        """The rows without a replication key after the others, if that makes the two agree."""
        ordered = sorted(theirs, key=lambda message: message.get("record", {}).get(key, "") is None)
        orders = [[identity(message, keys) for message in run] for run in (ours, theirs, ordered)]
        if orders[0] == orders[1] or orders[0] != orders[2]:
            return theirs
        self.report.difference(where, "NULL in the replication key", f"they come last, {self.report.other} first")
        return ordered


def change(message):
    """Which change a message tells, if it is one from the log."""
    lsn = message.get("record", {}).get(LSN)
    return None if lsn is None else (message["stream"], lsn)


def shape(state):
    """A state without positions in the log."""
    state = parse(dump(state))
    for bookmark in state["bookmarks"].values():
        if bookmark.get("replication_key") in (LSN, None) and is_number(bookmark.get("replication_key_value")):
            bookmark["replication_key_value"] = "any"
    return state


# What the tables of fixtures/reference don't have.
OTHERS = """
create table declared (id integer primary key, n integer not null, m mood not null, a integer[] not null, c text);
comment on column declared.c is 'a comment';
insert into declared values (1, 2, 'ok', '{3}', 'c');
create table others (id integer primary key, o oid, i interval[], x xml[]);
insert into others values (1, 4000000000, '{1 day 02:03:04}', '{<a/>}');
create table endless (id integer primary key, d date, t timestamp, tz timestamptz);
insert into endless values (1, 'infinity', 'infinity', 'infinity'), (2, '-infinity', '-infinity', '-infinity');
"""

# Rows 11 and on are those from 1 on, as in fixtures/reference/changes.sql.
EXTENDED_CHANGES = "insert into extended select (extended #= hstore('id', (id + 10)::text)).* from extended"


def messages(database, taps, report):
    """Both taps over fixtures/reference, then over fixtures/differences."""
    fixture(database, "reference", "compared")
    compared = database.on("compared")
    compared.sql(OTHERS)
    pair, copied = Pair(report, taps, compared, **COPYING), []
    for table in pair.tables():
        copied += pair.run("full_table", {table: "FULL_TABLE"}).get(taps[0], [])
    for setting in ("dates_as_string", "json_as_object"):
        tables = ("scalars", "arrays", "extended")
        Pair(report, taps, compared, **{setting: True}).run(setting, dict.fromkeys(tables, "FULL_TABLE"))
    compared.sql("alter database compared set timezone = 'Etc/GMT-1'")
    pair.run("time zone", dict.fromkeys(("scalars", "extended"), "FULL_TABLE"))
    compared.sql("alter database compared reset timezone")
    for key in ("updated_at", "id", "amount"):
        methods = {"events": ("INCREMENTAL", key)}
        pair.run("incremental", methods, pair.run("incremental", methods))
    pair.slots()
    quoted = {'Quoted "Table"': ("LOG_BASED", LSN)}
    pair.run("log_based", quoted, fails="quoted names, LOG_BASED")
    replicated = ["arrays", "declared", "dropped_column", "events", "extended", "no_key", "scalars", "toasted"]
    methods = dict.fromkeys(replicated, ("LOG_BASED", LSN))
    runs = pair.run("log_based", methods)
    compared.run("-f", "fixtures/reference/changes.sql")
    compared.sql(EXTENDED_CHANGES)
    runs = pair.run("log_based", methods, runs, logged=True)
    as_copied(report, copied, runs.get(taps[0], []))
    # Without a replication key the other begins where the slot stands, not at its bookmark.
    pair.run("log_based", dict.fromkeys(replicated, "LOG_BASED"), runs, logged=True)

    fixture(database, "differences", "differing")
    differing = database.on("differing")
    pair = Pair(report, taps, differing, **COPYING)
    outside = ("odd_date", "odd_timestamp")
    for table in outside:
        pair.run("full_table", {table: "FULL_TABLE"}, fails="days outside the years 1–9999")
    pair.run("full_table", {table: "FULL_TABLE" for table in pair.tables() if table not in outside})
    Pair(report, taps, differing, dates_as_string=True).run("dates_as_string", dict.fromkeys(outside, "FULL_TABLE"))
    pair.slots()
    # The other's copy would fail.
    lsn = int(differing.sql("select pg_current_wal_flush_lsn() - '0/0'"))
    bookmark = {"replication_key": LSN, "replication_key_value": lsn}
    state = {"bookmarks": {f"public-{table}": bookmark for table in pair.tables()}}
    differing.run("-f", "fixtures/differences/changes.sql")
    start = dict.fromkeys(taps, [{"type": "STATE", "value": state}])
    pair.run("log_based", dict.fromkeys(pair.tables(), ("LOG_BASED", LSN)), start, logged=True)


def as_copied(report, copied, logged):
    """Whether this tap tells of a change as it tells of a row: rows 11 and on are the same as those from 1 on."""
    rows = {(m["stream"], m["record"].get("id")): m["record"] for m in copied if m["type"] == "RECORD"}
    for stream in ("public-arrays", "public-extended", "public-scalars"):
        changes = [m["record"] for m in logged if m["type"] == "RECORD" and m["stream"] == stream]
        plain = [{name: value for name, value in change.items() if not name.startswith("_sdc_")} for change in changes]
        wanted = [dict(rows.get((stream, change["id"] - 10), {}), id=change["id"]) for change in changes]
        report.verdict(f"{stream}: {len(changes)} changes as copied", "" if plain and plain == wanted else "they differ")


# ------------------------------------------------------------------------------------------------ handover


# The types of replication keys; with the last three the other tap fails on the second run.
KEYS = ("integer", "bigint", "numeric", "text", "timestamp", "timestamptz", "uuid", "double", "date", "time")
HANDOVER = """
create table whole (id integer primary key, k_integer integer, k_bigint bigint, k_numeric numeric(12,2), k_text text,
    k_timestamp timestamp, k_timestamptz timestamptz, k_uuid uuid, k_double double precision, k_date date, k_time time,
    note text);
create table beside (id integer primary key, note text, kept text);
alter table beside alter column kept set storage external;
create table big (id integer primary key, note text);
create function change(round integer) returns void language plpgsql as $$
declare
    key text;
begin
    insert into whole select i, i, 5000000000 + i, i + 0.02, 'k' || to_char(i, 'FM000000'),
        timestamp '2020-01-01 00:00:00.123456' + i * interval '1 hour',
        timestamptz '2020-06-01 12:00+02' + i * interval '1 hour',
        ('00000000-0000-0000-0000-' || to_char(i, 'FM000000000000'))::uuid, i + 0.1, date '2020-01-01' + i,
        time '00:00' + i * interval '1 second', 'round ' || round
    from generate_series(round * 1000 + 1, round * 1000 + 100) i;
    -- The last row of the round before.
    update whole set note = 'changed in ' || round where id = round * 1000 - 900;
    delete from whole where id = round * 1000 - 990;
    foreach key in array '{@@KEYS@@}'::text[] loop
        execute format('insert into by_%s select * from whole where id > %s', key, round * 1000);
        execute format('update by_%s set note = %L where id = %s', key, 'changed in ' || round, round * 1000 - 900);
    end loop;
    insert into beside select 10 * round + i, 'b', repeat('x', 10000) from generate_series(1, 3) i where round <> 2;
    update beside set note = 'changed in ' || round where id = 10 * round - 9;
end $$;
insert into big select i, repeat('x', 100) from generate_series(1, 40000) i;
""".replace("@@KEYS@@", ",".join(KEYS)) + "".join(f"create table by_{key} (like whole including all);\n" for key in KEYS)


def handover(database, taps, report):
    """Each tap continues from the other's state, with the other's catalog."""
    ours, theirs = taps
    incremental = {f"by_{key}": ("INCREMENTAL", f"k_{key}") for key in KEYS}
    strings = {f"by_{key}": incremental[f"by_{key}"] for key in ("timestamp", "timestamptz", "date")}
    once = {f"by_{key}": incremental.pop(f"by_{key}") for key in KEYS[-3:]}
    for first, second in (taps, taps[::-1]):
        order = [first, second, first, second, second, first]
        what = f"{first.name} first"
        rounds(report, database, taps, order, f"FULL_TABLE and INCREMENTAL, {what}", {"whole": "FULL_TABLE", **incremental})
        rounds(report, database, taps, order, f"INCREMENTAL, dates_as_string, {what}", strings, dates_as_string=True)
        logged = dict.fromkeys(("whole", "beside"), ("LOG_BASED", LSN))
        rounds(report, database, taps, order, f"LOG_BASED, {what}", logged, **COPYING)
        without_key = dict.fromkeys(logged, "LOG_BASED")
        rounds(report, database, taps, order, f"LOG_BASED without a replication key, {what}", without_key, **COPYING)
        # With its defaults the other has a connection for each table, and copies none.
        rounds(report, database, taps, order, f"LOG_BASED by default, {what}", logged)
        for method in ("FULL_TABLE", ("INCREMENTAL", "id"), ("LOG_BASED", LSN)):
            mid_copy(report, database, taps, first, second, method)
    rounds(report, database, taps, [theirs, ours, ours], "INCREMENTAL by what the other fails on", once)


def rounds(report, database, taps, order, what, methods, **settings):
    """Runs of the taps in this order, with changes before each."""
    source, target = new_database(database), Target()
    catalog = select(taps[1].discover(source), methods)
    for number, tap in enumerate(order, 1):
        source.sql(f"select change({number})")
        try:
            output = tap.sync(source, catalog, target.state, replication_slot_name=source.name, **settings)
        except Failed as failed:
            return report.verdict(f"{what}, round {number}", str(failed))
        target.take(output)
        for table, method in methods.items():
            wrong = target.compare(source, table, deleted=method != "FULL_TABLE")
            wrong = wrong or (again(output, table, method) if number > 1 else "")
            if wrong:
                return report.verdict(f"{what}, round {number}, {tap.name}", f"{table}: {wrong}")
    report.verdict(f"{what}: {' '.join(tap.name for tap in order)}")


def new_database(database):
    """A database of its own, with a slot of its name that has all changes."""
    name = "handover_" + database.sql("select count(*) from pg_database").strip()
    database.sql(f"create database {name} encoding 'UTF8' template template0")
    database.on(name).slot(name)
    database.on(name).sql(HANDOVER)
    return database.on(name)


def again(output, table, method):
    """What a run sent although the run before had it: more than the row that the bookmark is of."""
    rows = [m["record"] for m in output if m["type"] == "RECORD" and m["stream"] == f"public-{table}"]
    if "INCREMENTAL" in method:
        return f"{len(rows)} rows read" if len(rows) > 101 else ""
    copied = [row for row in rows if LSN in row and row[LSN] is None]
    return f"{len(copied)} rows copied again" if copied else ""


def mid_copy(report, database, taps, first, second, method):
    """The first tap is stopped in the middle of a copy, the second goes on or begins again, the first goes on after that."""
    source, target = new_database(database), Target()
    settings = dict(COPYING, replication_slot_name=source.name)
    logged = "LOG_BASED" in method
    what = f"{method if isinstance(method, str) else method[0]}, {first.name} stopped in a copy"
    catalog = select(taps[1].discover(source), {"big": method})
    target.take(first.interrupted(first.files(source, catalog, **settings), 15000))
    held = len(target.rows["public-big"])
    if held >= 40000:
        return report.verdict(what, "it was not stopped in the middle")
    for number, tap in enumerate((second, first, second), 1):
        source.sql(f"insert into big values (100000 + {number}, 'new')")
        source.sql(f"update big set note = 'changed' where id = 99999 + {number}")
        if number > 1:
            # Of a row that is deleted before the copy is complete nothing tells without versions.
            source.sql(f"delete from big where id = {number}")
        try:
            target.take(tap.sync(source, catalog, target.state, **settings))
        except Failed as failed:
            return report.verdict(f"{what}, then {tap.name}", str(failed))
        wrong = target.compare(source, "big", deleted=logged)
        if wrong:
            return report.verdict(f"{what}, run {number} after it, {tap.name}", wrong)
    report.verdict(f"{what} (exit {first.ended_by}, {held} rows), then {second.name}, {first.name}, {second.name}")


def main(work):
    what, ours, theirs, port, psql = sys.argv[1:]
    database = Database(psql, "127.0.0.1", port, "postgres")
    taps = (Tap("ours", ours, work, {"schema_dialect": "meltanolabs"}), Tap("theirs", theirs, work, {}))
    report, started = Report("theirs"), time.time()
    if what in ("all", "messages"):
        print("\n== Messages: differences", flush=True)
        messages(database, taps, report)
        print(f"\n{report.compared} messages compared; differences that docs/migrating.md promises:")
        for row, count in report.meant.items():
            print(f"  {count:3}  {row}")
    if what in ("all", "handover"):
        print("\n== States: each continues from the other's", flush=True)
        handover(database, taps, report)
    print(f"\n{report.unexpected} unexpected, in {time.time() - started:.0f} s")
    return 1 if report.unexpected else 0


with tempfile.TemporaryDirectory() as directory:
    sys.exit(main(directory))
