"""The figures, as tables and as JSON."""

import json
import os
import platform
import subprocess
from datetime import datetime, timezone

from programs import PATIENCE

# Metric, heading, decimals.
COLUMNS = (("wall", "wall s", 3), ("first", "first s", 3), ("cpu", "client CPU s", 2), ("target_cpu", "target CPU s", 2),
           ("server_cpu", "server CPU s", 2), ("peak_mb", "peak MB", 1), ("temp_mb", "temp MB", 0))


def results(chosen, bench, sections, seconds):
    """Everything that is known of a benchmark."""
    notes = [f"Medians of {chosen.rounds} runs, all cases of a table in turn. CPU is the client's; server CPU that of the "
             "backends which served it."]
    if bench.peers:
        notes.append(f"Other taps, and pipelines with a target: {chosen.peer_rounds} run(s). LOG_BASED, the other "
                     f"taps wait before they end for further messages, by default for hours and for a minute; they are told "
                     f"to wait {PATIENCE} s, which are not counted.")
    if chosen.scale != 1:
        notes.append(f"Scaled to {chosen.scale:g} of the workload: ratios are not those of the whole.")
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"), "commit": commit(), "scale": chosen.scale,
        "rounds": chosen.rounds, "peer_rounds": chosen.peer_rounds, "seconds": round(seconds), "notes": notes,
        "machine": machine(), "versions": versions(chosen, bench),
        "sections": [section_results(section) for section in sections],
    }


def section_results(section):
    cases = []
    for case, against in section.rows:
        medians = {metric: case.median(metric) for metric, _, _ in COLUMNS if case.median(metric) is not None}
        ratio = section.ratio(case.name, against) if against else None
        cases.append({"name": case.name, "kind": case.kind, "median": medians, "compared_with": against or None,
                      "ratio": ratio, "failure": case.failure,
                      "verified": case.expected if case.verified else None, "runs": case.runs})
    return {"name": section.name, "title": section.title, "cases": cases,
            "goals": [goal.result() for goal in section.goals]}


def output_of(*command):
    try:
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout.decode().strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def commit():
    here = os.path.dirname(os.path.abspath(__file__))
    changed = output_of("git", "-C", here, "status", "--porcelain", "--untracked-files=no")
    known = output_of("git", "-C", here, "rev-parse", "--short", "HEAD")
    return f"{known}, changed" if known and changed else known


def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    load = os.getloadavg()[0]
    return {"cpu": model, "cores": os.cpu_count(), "memory_gib": round(memory), "kernel": platform.release(),
            "load_at_the_end": round(load, 1)}


def versions(chosen, bench):
    found = {"postgres": bench.server.sql("postgres", "show server_version"),
             bench.tap.name: output_of(chosen.tap, "--version"), "python": platform.python_version()}
    for name in ("reference", "meltano-tap", "jsonl", "pipelinewise", "meltano"):
        path = os.path.join(chosen.pypi or "", name, "installed")
        if bench.peers and os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                package, _, version = file.read().strip().partition("==")
            found[package] = version
    return found


def text(known):
    """The tables, as Markdown."""
    machine_, versions_ = known["machine"], known["versions"]
    lines = [f"{machine_['cpu']}, {machine_['cores']} cores, {machine_['memory_gib']} GiB; PostgreSQL "
             f"{versions_['postgres']}; commit {known['commit']}; {known['seconds']} s.", *known["notes"]]
    for section in known["sections"]:
        lines += ["", f"## {section['title']}", "", *table(section), ""]
        failed = [case for case in section["cases"] if case["failure"]]
        lines += [f"- {case['name']} failed: {case['failure']}" for case in failed]
        lines += [f"- {verdict(goal)} {goal['goal']}{'' if goal['value'] is None else ': %.3g' % goal['value']}"
                  for goal in section["goals"]]
    return "\n".join(lines)


def verdict(goal):
    return {True: "met:", False: "NOT MET:", None: "not measured:"}[goal["met"]]


def table(section):
    """As lines of Markdown that is aligned."""
    columns = [column for column in COLUMNS if any(column[0] in case["median"] for case in section["cases"])]
    lines = [["", *(heading for _, heading, _ in columns), "wall, compared"]]
    for case in section["cases"]:
        values = [f"{case['median'][metric]:.{decimals}f}" if metric in case["median"] else "–"
                  for metric, _, decimals in columns]
        compared = f"{case['ratio']:.3g} × {case['compared_with']}" if case["ratio"] else "failed" if case["failure"] else ""
        lines.append([case["name"], *values, compared])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    lines.insert(1, ["-" * width for width in widths])
    aligned = []
    for number, line in enumerate(lines):
        cells = [cell.rjust(width) if 0 < column < len(widths) - 1 else cell.ljust(width)
                 for column, (cell, width) in enumerate(zip(line, widths))]
        if number == 1:
            cells[1:-1] = [cell[:-1] + ":" for cell in cells[1:-1]]
        aligned.append(f"| {' | '.join(cells)} |")
    return aligned


def write(known, directory):
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, "results.json"), "w", encoding="utf-8") as file:
        json.dump(known, file, indent=1, ensure_ascii=False)
        file.write("\n")
    with open(os.path.join(directory, "results.md"), "w", encoding="utf-8") as file:
        file.write(f"# Figures\n\nBy `scripts/bench`; results.json has every run.\n\n{text(known)}\n")
