"""What a table of the benchmark is made of: cases that are run in turn, what each is compared with, and goals."""

import statistics
from dataclasses import dataclass, field
from typing import Callable, List, Optional

LIMIT, TAP, PEER = "limit", "tap", "peer"
RECORD = b'{"type":"RECORD"'


@dataclass
class Case:
    """Something that is run."""

    name: str
    kind: str
    # Command lines, each reading what the one before it writes.
    commands: List[list]
    database: str
    # Before and after each run, not measured.
    before: Callable = lambda: None
    after: Callable = lambda: None
    # How long it waits before it ends, because it does not know that it is done; not counted.
    waits: float = 0
    # How often `counted` has to be in the output: a run that is fast because it is wrong has no figures.
    counted: bytes = RECORD
    expected: Optional[int] = None
    verified: bool = False
    # Whether the time of the first line counts; a short run is repeated.
    first: bool = False
    repeat: int = 1
    # What it took, run by run; or why another tap could not do it.
    runs: List[dict] = field(default_factory=list)
    failure: Optional[str] = None

    def median(self, metric):
        values = [run[metric] for run in self.runs if run.get(metric) is not None]
        return statistics.median(values) if values else None

    def most(self, metric):
        return max((run[metric] for run in self.runs), default=None)


@dataclass
class Goal:
    """A bound on a value, or on how it compares with another."""

    text: str
    value: Callable
    at_most: Optional[float] = None
    at_least: Optional[float] = None

    def result(self):
        value = self.value()
        met = None
        if value is not None:
            met = value <= self.at_most if self.at_most is not None else value >= self.at_least
        return {"goal": self.text, "value": value, "at_most": self.at_most, "at_least": self.at_least, "met": met}


@dataclass
class Section:
    """A table: cases, each with the name of the case that it is compared with."""

    name: str
    title: str
    rows: list
    goals: List[Goal] = field(default_factory=list)

    def cases(self):
        return [case for case, _ in self.rows]

    def case(self, name):
        return next((case for case in self.cases() if case.name == name), None)

    def ratio(self, case, against, metric="wall"):
        """How often the one goes into the other; None where one of them did not run."""
        case, against = self.case(case), self.case(against)
        if case and against and case.runs and against.runs and against.median(metric):
            return case.median(metric) / against.median(metric)
        return None

    # Goals

    def at_most(self, factor, case, against):
        self.goals.append(Goal(f"{case}: at most {factor:g} × {against}",
                               lambda: self.ratio(case, against), at_most=factor))

    def faster(self, factor, case, than):
        self.goals.append(Goal(f"{case}: at least {factor:g} × faster than {than}",
                               lambda: self.ratio(than, case), at_least=factor))

    def flat(self, factor, case, tenth, unit):
        """Ten times as much takes ten times as long, or nearly so."""
        def value():
            ratio = self.ratio(case, tenth)
            return None if ratio is None else ratio / 10
        self.goals.append(Goal(f"{case}: at most {factor:g} × the time per unit ({unit}) of a tenth", value, at_most=factor))

    def no_larger(self, megabytes, case, than):
        def value():
            case_, than_ = self.case(case), self.case(than)
            return case_.most("peak_mb") - than_.most("peak_mb") if case_.runs and than_.runs else None
        self.goals.append(Goal(f"{case}: at most {megabytes} MB more than {than}", value, at_most=megabytes))

    def seconds(self, bound, case, metric, what):
        self.goals.append(Goal(f"{case}: {what} within {bound:g} s",
                               lambda: self.case(case).median(metric), at_most=bound))

    def cpu_share(self, share, case):
        """Of the processor time that the server takes for the same run."""
        def value():
            of = self.case(case)
            return of.median("cpu") / of.median("server_cpu") if of.runs and of.median("server_cpu") else None
        self.goals.append(Goal(f"{case}: CPU at most {share:g} × the server's", value, at_most=share))

    def memory(self, megabytes, *names):
        """Peaks of every run of the tap's cases of these names; of all without a name."""
        def value():
            cases = [case for case in self.cases() if case.kind == TAP and (not names or case.name in names)]
            return max((case.most("peak_mb") for case in cases if case.runs), default=None)
        self.goals.append(Goal(f"the tap's peak memory: under {megabytes} MB", value, at_most=megabytes))
