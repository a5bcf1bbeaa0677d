"""The benchmark of scripts/bench, which starts it with what it needs. Standard library only."""

import argparse
import os
import sys
import time

import chart
import report
from bench import Bench
from measure import Failed
from programs import JsonlTarget, MeltanoPostgresTarget, PostgresTarget, Tap
from scale import Scale
from sections import NEEDS_PEERS, PEERS, Sections
from server import Server

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def arguments():
    names = [name for tables in (Sections, Scale) for group in tables.GROUPS for name in group]
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measures the tap against what PostgreSQL's own "
                                     "programs need, and against other taps; writes docs/bench.")
    parser.add_argument("--rounds", type=int, default=3, help="how often each case is run, all in turn (3)")
    parser.add_argument("--peer-rounds", type=int, default=1,
                        help="how often other taps, and pipelines with a target, are run: they take minutes (1)")
    parser.add_argument("--no-peers", action="store_true", help="leave out what comes from PyPI")
    parser.add_argument("--at-scale", action="store_true", help="other tables: whether time per unit and memory are those of a "
                        "tenth; takes 15 minutes and 15 GB")
    parser.add_argument("--only", type=lambda text: text.split(","), default=names, metavar="TABLE,…",
                        help=f"only these tables, of {', '.join(names)}")
    parser.add_argument("--scale", type=float, default=1, help="a part of the workload, such as 0.1, for use while "
                        "working")
    parser.add_argument("--output", help="where to write results.json and the charts; without it a whole run writes "
                        "docs/bench, and any other nothing")
    # From scripts/bench; without them only the arguments are checked.
    for name in ("directory", "programs", "ports", "tap", "pypi"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    unknown = set(chosen.only) - set(names)
    if unknown:
        parser.error(f"no such table: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    if not 0 < chosen.scale <= 1:
        parser.error("--scale must be above 0 and at most 1")
    if min(chosen.rounds, chosen.peer_rounds) < 1:
        parser.error("a case is run at least once")
    if chosen.scale == 1 and set(chosen.only) == set(names) and (chosen.at_scale or not chosen.no_peers):
        chosen.output = chosen.output or os.path.join(ROOT, "docs", "bench", *["at_scale"] * chosen.at_scale)
    # None of them has anything from PyPI in it.
    chosen.no_peers |= chosen.at_scale
    return chosen


def prepare(chosen):
    files = os.path.join(chosen.directory, "files")
    os.makedirs(files, exist_ok=True)
    source, warehouse = (Server(chosen.programs, os.path.join(chosen.directory, name), int(port))
                         for name, port in zip(("source", "warehouse"), chosen.ports.split(",")))
    peers, targets = [], []
    if not chosen.no_peers:
        peers = [peer(os.path.join(chosen.pypi, name, "bin", "tap-postgres"), source, files)
                 for name, peer in PEERS.items()]
        targets = [target(chosen.pypi, warehouse, files) for target in (JsonlTarget, PostgresTarget, MeltanoPostgresTarget)]
    tap = Tap(chosen.tap, source, files)
    fixtures = os.path.join(ROOT, "fixtures", "bench")
    return Bench(files, fixtures, source, tap, peers, targets, chosen.scale)


def main():
    chosen = arguments()
    if not chosen.directory:
        return 0
    bench = prepare(chosen)
    sections, started, done = (Scale if chosen.at_scale else Sections)(bench), time.monotonic(), []
    # First, because a slot has to read through the log of whatever is made after it.
    if {"discovery", "one_table"} & set(chosen.only) and not chosen.at_scale:
        bench.many_tables()
    if {"stream", "bulk"} & set(chosen.only) and not chosen.at_scale:
        bench.orders()
        if bench.peers:
            bench.orders_for_peers()
    for group in sections.GROUPS:
        names = [name for name in group if name in chosen.only and not (chosen.no_peers and name in NEEDS_PEERS)]
        if not names:
            continue
        built = [sections.build(name) for name in names]
        print(f"\n{'; '.join(section.title for section in built)}", flush=True)
        cases = {case.name: case for section in built for case in section.cases()}.values()
        bench.run_in_turn(cases, chosen.rounds, chosen.peer_rounds)
        for name in names:
            bench.drop_slots(sections.DONE_WITH.get(name, ()))
        done += built
    results = report.results(chosen, bench, done, time.monotonic() - started)
    print(f"\n{report.text(results)}")
    if chosen.output:
        report.write(results, chosen.output)
        for section in [] if chosen.at_scale else results["sections"]:
            chart.write(section, chosen.output)
        print(f"\nWritten to {os.path.relpath(chosen.output)}.")
    else:
        print("\nNothing is written: only a whole run goes into docs/bench.")
    return 0


try:
    sys.exit(main())
except Failed as failed:
    sys.exit(f"bench: {failed}")
