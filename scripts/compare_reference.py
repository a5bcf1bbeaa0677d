"""The comparison of scripts/compare-reference, which starts it with what it needs. Standard library only."""

import json
import sys
import tempfile
import time

from compare import (
    ABSENT, Database, Failed, Program, Report, Target, as_double, columns, comparable, differences, dump, fixture,
    identity, instant, is_number, lines, parse, same, short,
)

CLOSEST = {"schema_dialect": "reference", "extended_types": False, "unchanged_toast": "omit"}
# The reference ends on an idle slot only after so many seconds.
PATIENCE = 2


class Tap(Program):
    """One of the two programs, and how it is to be called."""

    def __init__(self, name, program, work, settings):
        super().__init__(name, program, work)
        self.settings = settings

    def files(self, database, tap_id, catalog=None, state=None):
        config = {"host": database.host, "port": "5432", "user": "postgres", "password": "none", "tap_id": tap_id}
        files = {"config": dict(config, dbname=database.name, logical_poll_total_seconds=PATIENCE, **self.settings)}
        files.update({name: value for name, value in (("properties", catalog), ("state", state)) if value is not None})
        return files

    def discover(self, database):
        return parse(self.output(self.files(database, "any"), "--discover"))

    def sync(self, database, tap_id, catalog, state=None):
        return lines(self.output(self.files(database, tap_id, catalog, state)))


def slot(database, tap_id):
    """Makes the slot that both look for."""
    database.slot(f"pipelinewise_{database.name}_{tap_id}")


def select(catalog, **methods):
    """The catalog with these tables selected, as `method` or `(method, replication key)`."""
    catalog = json.loads(dump(catalog))
    for entry in catalog["streams"]:
        table = next(item["metadata"] for item in entry["metadata"] if not item["breadcrumb"])
        method = methods.get(entry["table_name"])
        if method:
            method, key = method if isinstance(method, tuple) else (method, None)
            table.update({"selected": True, "replication-method": method})
            if key:
                table["replication-key"] = key
            if table.get("is-view"):
                table["view-key-properties"] = ["id"]
    return catalog


# ---------------------------------------------------------------------------------------------- comparison


def reason(column, sql_type, logged, ours, theirs):
    """The row of the contract that promises a difference of a value; None where no row does."""
    element = sql_type.replace("[]", "")
    array = sql_type.endswith("[]")
    fallback = {"date": "9999-12-31T00:00:00+00:00"}.get(element, "9999-12-31T23:59:59.999+00:00")
    rows = {
        "deleted row": column == "_sdc_deleted_at" and instant(ours) and instant(theirs),
        "numeric": logged and element == "numeric" and as_double(ours, theirs),
        "number arrays": logged and array and is_number(ours) and isinstance(theirs, str) and str(ours) == theirs,
        "NaN, ±Infinity": element in ("numeric", "real", "double precision") and ours is None and is_number(theirs),
        "NULL array": array and ours is None and theirs == [],
        "date outside years 1–9999, ±infinity": element == "date" and same(ours, fallback),
        "timestamp outside years 1–9999, ±infinity": element.startswith("timestamp") and same(ours, fallback),
        "json, jsonb": element in ("json", "jsonb") and as_double(ours, theirs),
        "time 24:00": element == "time without time zone" and ours == "00:00:00",
        "timetz": element == "time with time zone" and isinstance(ours, str),
    }
    return next((row for row, applies in rows.items() if applies), None)


def compare_messages(report, where, types, ours, theirs, logged=False):
    keys = {m["stream"]: m["key_properties"] for m in ours if m["type"] == "SCHEMA"}
    last = [[m["value"] for m in run if m["type"] == "STATE"][-1:] for run in (ours, theirs)]
    ours, theirs = ([comparable(m) for m in run if m["type"] != "STATE"] for run in (ours, theirs))
    report.compared += len(theirs) + 1
    while ours and theirs:
        mine, other = ours[0], theirs[0]
        stream = mine.get("stream")
        if identity(mine, keys) != identity(other, keys):
            # Of a changed key the reference tells the new row only.
            row = "update that changes the key" if logged and mine.get("record", {}).get("_sdc_deleted_at") else None
            report.difference(f"{where}, {stream}", row, f"{short(mine)}, the reference {short(other)}")
            if row is None:
                return
            ours.pop(0)
            continue
        for path, a, b in differences(ours.pop(0), theirs.pop(0)):
            column = path[1] if mine["type"] == "RECORD" and len(path) > 1 else ""
            row = reason(column, types.get(stream, {}).get(column, ""), logged, a, b) if column else None
            report.value(f"{where}, {stream}", row, path, a, b)
    for name, rest in (("this tap", ours), ("the reference", theirs)):
        if rest:
            report.difference(where, None, f"{len(rest)} more messages of {name}, the first: {short(rest[0])}")
    shapes = [shape(state[0]) if state else None for state in last]
    for path, a, b in differences(*shapes):
        report.value(where, None, ("state",) + path, a, b)


def shape(state):
    """A state without positions; the bookmark's keys `table_oid` and `definition` and an empty `xmin` are this tap's affair."""
    state = parse(dump(state))
    for bookmark in state["bookmarks"].values():
        bookmark.pop("table_oid", None)
        bookmark.pop("definition", None)
        for key in ("lsn", "version"):
            if is_number(bookmark.get(key)):
                bookmark[key] = "any"
        if bookmark.get("xmin", ABSENT) is None:
            del bookmark["xmin"]
    return state


def compare_catalogs(report, ours, theirs):
    def entries(catalog):
        found = {}
        for entry in catalog["streams"]:
            entry = dict(entry, metadata={"/".join(i["breadcrumb"]): dict(i["metadata"]) for i in entry["metadata"]})
            if is_number(entry["metadata"][""].get("row-count")):
                entry["metadata"][""]["row-count"] = "any"
            found[entry["tap_stream_id"]] = entry
        return found

    report.compared += len(theirs["streams"])
    for path, a, b in differences(entries(ours), entries(theirs)):
        report.value("discovery", None, path, a, b)


def messages(database, ours, theirs, report):
    """Both taps over fixtures/reference, then over fixtures/differences."""
    fixture(database, "reference", "compared")
    compared = database.on("compared")
    catalogs = {tap: tap.discover(compared) for tap in (ours, theirs)}
    compare_catalogs(report, *catalogs.values())
    types = columns(catalogs[ours])

    def both(where, database, methods, states=None, logged=False):
        """Runs both; the states that they end with. A failure of the reference is a difference of its own."""
        outputs = {}
        for tap in (ours, theirs):
            catalog = select(catalogs[tap], **methods)
            outputs[tap] = tap.sync(database, tap.name + "_" + where, catalog, states and states[tap])
        compare_messages(report, where, types, outputs[ours], outputs[theirs], logged)
        return {tap: [m["value"] for m in outputs[tap] if m["type"] == "STATE"][-1] for tap in outputs}

    for entry in catalogs[ours]["streams"]:
        try:
            both("full_table", compared, {entry["table_name"]: "FULL_TABLE"})
        except Failed as failed:
            report.difference(f"full_table, {entry['tap_stream_id']}", None, failed)
    for key in ("updated_at", "id", "amount"):
        methods = {"events": ("INCREMENTAL", key)}
        both("incremental", compared, methods, both("incremental", compared, methods))
    replicated = ['Quoted "Table"', "arrays", "dropped_column", "events", "no_key", "scalars", "toasted"]
    methods = dict.fromkeys(replicated, "LOG_BASED")
    for tap in (ours, theirs):
        slot(compared, tap.name + "_log_based")
    states = both("log_based", compared, methods)
    compared.run("-f", "fixtures/reference/changes.sql")
    both("log_based", compared, methods, states, logged=True)

    fixture(database, "differences", "differing")
    differing = database.on("differing")
    catalogs = {tap: tap.discover(differing) for tap in (ours, theirs)}
    types = columns(catalogs[ours])
    tables = sorted(entry["table_name"] for entry in catalogs[ours]["streams"])
    states = {}
    for table in tables:
        for tap in (ours, theirs):
            slot(differing, f"{tap.name}_{table}")
        states[table] = differing_run(report, table, lambda: both(table, differing, {table: "LOG_BASED"}))
    differing.run("-f", "fixtures/differences/changes.sql")
    for table in tables:
        start = states[table] or dict.fromkeys(catalogs, fresh(ours, catalogs[ours], differing, table))
        methods = {table: "LOG_BASED"}
        differing_run(report, table, lambda: both(table, differing, methods, start, logged=True), logged=True)


def fresh(tap, catalog, database, table):
    """A state to read the log from where the reference's own copy fails: what the slot has."""
    output = tap.sync(database, f"{tap.name}_{table}", select(catalog, **{table: "LOG_BASED"}))
    state = [m["value"] for m in output if m["type"] == "STATE"][-1]
    slot = f"pipelinewise_{database.name}_{tap.name}_{table}"
    lsn = database.sql(f"select confirmed_flush_lsn - '0/0' from pg_replication_slots where slot_name = '{slot}'")
    state["bookmarks"][f"public-{table}"]["lsn"] = int(lsn)
    return state


def differing_run(report, table, run, logged=False):
    """A run over a table of fixtures/differences, on which the reference may fail where the contract says so."""
    crashes = {
        "no_number_array": "NaN, ±Infinity",
        "odd_date": "date outside years 1–9999, ±infinity",
        "odd_timestamp": "timestamp outside years 1–9999, ±infinity",
        "odd_timetz": "timetz",
        "odd_offset": "timetz",
    }
    try:
        return run()
    except Failed as failed:
        # Only the reference's own failures are meant.
        row = crashes.get(table) if str(failed).startswith("reference") else None
        report.difference(f"{table}, {'log' if logged else 'copy'}", row, short(str(failed)))
        return None


# ------------------------------------------------------------------------------------------------ handover


HANDOVER = """
create table moved (id integer primary key, k_integer integer, k_bigint bigint, k_numeric numeric(12,2), k_text text,
    k_date date, k_timestamp timestamp, k_timestamptz timestamptz, k_uuid uuid, note text);
create table beside (id integer primary key, note text);
create table big (id integer primary key, note text);
create function change(round integer) returns void language sql as $$
    insert into moved select i, i, 5000000000 + i, i + 0.02, 'k' || to_char(i, 'FM000000'), date '2020-01-01' + i,
        timestamp '2020-01-01 00:00:00.123456' + i * interval '1 hour',
        timestamptz '2020-06-01 12:00+02' + i * interval '1 hour',
        ('00000000-0000-0000-0000-' || to_char(i, 'FM000000000000'))::uuid, 'round ' || round
    from generate_series(round * 1000 + 1, round * 1000 + 100) i;
    update moved set note = 'changed in ' || round where id = round * 1000 - 900;
    insert into beside select 10 * round + i, 'b' from generate_series(1, 3) i where round <> 2;
$$;
create function remove(round integer) returns void language sql as $$
    delete from moved where id = round * 1000 - 990;
$$;
insert into big select i, repeat('x', 100) from generate_series(1, 60000) i;
"""

# A row that is updated behind the key is INCREMENTAL's to miss; this one is the last.
INCREMENTAL_UPDATE = "update moved set note = 'last in {0}' where id = (select max(id) from moved)"


def handover(database, ours, theirs, report):
    """Each tap continues from the other's state."""
    for first, second in ((ours, theirs), (theirs, ours)):
        order = [first, second, first, second, second, first]
        keys = ["integer", "bigint", "numeric", "text", "date", "timestamp", "timestamptz", "uuid"]
        for method, key in [("FULL_TABLE", None), *(("INCREMENTAL", f"k_{key}") for key in keys), ("LOG_BASED", None)]:
            rounds(database, order, method, key, report)
        for method in ("FULL_TABLE", "LOG_BASED"):
            mid_copy(database, first, second, method, report)


def new_database(database, name):
    database.sql(f"create database {name} encoding 'UTF8' template template0")
    database.on(name).sql(HANDOVER)
    return database.on(name)


def rounds(database, order, method, key, report):
    # In a database of its own: a slot is left in it.
    name = "_".join(filter(None, ("moved", order[0].name, method.lower(), key)))
    source, target = new_database(database, name), Target()
    if method == "LOG_BASED":
        slot(source, "tap")
    what = f"{method}{' by ' + key if key else ''}, {order[0].name} first"
    catalog = select(order[0].discover(source), moved=(method, key), **({} if key else {"beside": method}))
    for number, tap in enumerate(order, 1):
        source.sql(f"select change({number})")
        if key:
            source.sql(INCREMENTAL_UPDATE.format(number))
            # Not what this way to replicate can tell.
            source.sql(f"update moved set note = 'round {number - 1}' where id = {number * 1000 - 900}")
        else:
            source.sql(f"select remove({number})")
        try:
            target.take(tap.sync(source, "tap", catalog, target.state))
        except Failed as failed:
            report.verdict(f"{what}, round {number}", str(failed))
            return
        for table in ["moved"] if key else ["moved", "beside"]:
            wrong = target.compare(source, table)
            if wrong:
                report.verdict(f"{what}, round {number}, {tap.name}", f"{table}: {wrong}")
                return
    report.verdict(f"{what}: {' '.join(tap.name for tap in order)}")


def mid_copy(database, first, second, method, report):
    """The first tap is stopped in the middle of a copy, the second begins again, the first goes on after that."""
    source, target = new_database(database, f"interrupted_{first.name}_{method.lower()}"), Target()
    if method == "LOG_BASED":
        slot(source, "tap")
    what = f"{method}, {first.name} stopped in a copy"
    catalog = select(first.discover(source), big=method)
    target.take(first.interrupted(first.files(source, "tap", catalog), 20000))
    held = len(target.rows["public-big"])
    if held >= 60000:
        report.verdict(what, "it was not stopped in the middle")
        return
    for number, tap in enumerate((second, first, second), 1):
        source.sql(
            f"insert into big values (100000 + {number}, 'new')", f"delete from big where id = {number}",
            f"update big set note = 'changed' where id = 50000 + {number}",
        )
        try:
            output = tap.sync(source, "tap", catalog, target.state)
        except Failed as failed:
            report.verdict(f"{what}, then {tap.name}", str(failed))
            return
        target.take(output)
        copied = sum(message["type"] == "RECORD" for message in output)
        # The reference goes on under the version of the interrupted copy: a row that was deleted meanwhile stays in the
        # target until the next run reads the log.
        later = number == 1 and method == "LOG_BASED" and not tap.settings
        wrong = target.compare(source, "big", deleted=not later)
        if number == 1 and copied < 60000 and not wrong:
            wrong = f"only {copied} rows copied"
        if wrong:
            report.verdict(f"{what}, then {tap.name}", wrong)
            return
    report.verdict(f"{what} (exit {first.ended_by}, {held} rows), then {second.name}, {first.name}, {second.name}")


def main(work):
    what, ours, theirs, host, psql = sys.argv[1:]
    database = Database(psql, host, "5432", "postgres")
    ours, theirs = Tap("ours", ours, work, CLOSEST), Tap("reference", theirs, work, {})
    report, started = Report("the reference"), time.time()
    if what in ("all", "messages"):
        print("\n== Messages: differences", flush=True)
        messages(database, ours, theirs, report)
        print(f"\n{report.compared} messages compared; differences that the contract promises:")
        for row, count in report.meant.items():
            print(f"  {count:3}  {row}")
    if what in ("all", "handover"):
        print("\n== States: each continues from the other's", flush=True)
        handover(database, ours, theirs, report)
    print(f"\n{report.unexpected} unexpected, in {time.time() - started:.0f} s")
    return 1 if report.unexpected else 0


with tempfile.TemporaryDirectory() as directory:
    sys.exit(main(directory))
