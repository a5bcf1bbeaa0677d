"""A bar chart of a table: an SVG that can be read on a light and on a dark page."""

import os
from html import escape

from cases import LIMIT, PEER, TAP

BARS = {LIMIT: "#8b949e", TAP: "#e8590c", PEER: "#4c8bd4"}
# Between black and white: as far from one as from the other.
TEXT = "#7b8490"
WIDTH, LETTER, VALUES, ROW, BAR, TOP = 880, 7.3, 150, 26, 16, 40


def write(section, directory):
    with open(os.path.join(directory, section["name"] + ".svg"), "w", encoding="utf-8") as file:
        file.write(svg(section))


def svg(section):
    metric = "first" if any("first" in case["median"] for case in section["cases"]) else "wall"
    cases = [case for case in section["cases"] if metric in case["median"]]
    longest = max((case["median"][metric] for case in cases), default=1) or 1
    bars = round(max((len(case["name"]) for case in cases), default=0) * LETTER) + 20
    height = TOP + ROW * len(cases) + 8
    what = "seconds to the first message" if metric == "first" else "seconds"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="system-ui, sans-serif" font-size="13" fill="{TEXT}" role="img">',
        f"<title>{escape(section['title'])}</title>",
        f'<text x="0" y="20" font-size="15" font-weight="600">{escape(section["title"])}: {what}</text>',
    ]
    for number, case in enumerate(cases):
        value, middle = case["median"][metric], TOP + ROW * number + ROW // 2
        length = max(1.5, value / longest * (WIDTH - bars - VALUES))
        weight = ' font-weight="600"' if case["kind"] == TAP else ""
        lines += [
            f'<text x="{bars - 10}" y="{middle + 4}" text-anchor="end"{weight}>{escape(case["name"])}</text>',
            f'<rect x="{bars}" y="{middle - BAR // 2}" width="{length:.1f}" height="{BAR}" rx="2" '
            f'fill="{BARS[case["kind"]]}"/>',
            f'<text x="{bars + length + 8:.1f}" y="{middle + 4}"{weight}>{spelt(value)}{compared(case, metric)}</text>',
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"


def compared(case, metric):
    """How a case compares with another, where the bars are of the same thing as the ratio."""
    if not case["ratio"] or metric != "wall":
        return ""
    return f" ({case['ratio']:.{1 if case['ratio'] >= 10 else 2}f} ×)"


def spelt(seconds):
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"
