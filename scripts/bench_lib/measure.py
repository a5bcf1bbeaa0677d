"""One run of a program, or of programs piped into each other: how long it took, and what it cost."""

import os
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass

from server import environment

MEGABYTE = 1 << 20


class Failed(Exception):
    """A program that ended with another exit code than 0, or that did not do its work."""

    def reason(self):
        """In one line."""
        first, *log = str(self).splitlines()
        error = next((line.strip() for line in log if "Error: " in line), "")
        return f"{first}: {error}" if error else first


@dataclass
class Cost:
    """What one process took."""

    cpu: float = 0.0
    peak: int = 0
    ended: float = 0.0
    code: int = 0


@dataclass
class Measured:
    """A run. Seconds; `first` is when the first line of the output came, if that was looked at."""

    wall: float
    costs: list
    first: float = None


class Process:
    """A process that was started, and the thread that waits for its end."""

    def __init__(self, command, stdin, stdout, home):
        self.name, self.log, self.cost = os.path.basename(command[0]), tempfile.TemporaryFile(dir=home), Cost()
        # What the parent occupied at the exec counts as the child's in ru_maxrss.
        self.inherited = high_water("self")
        self.popen = subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=self.log, env=environment(HOME=home))
        self.waiter = threading.Thread(target=self.wait)
        self.waiter.start()

    def wait(self):
        _, status, usage = os.wait4(self.popen.pid, 0)
        self.cost.ended = time.monotonic()
        self.popen.returncode = self.cost.code = os.waitstatus_to_exitcode(status)
        self.cost.cpu = usage.ru_utime + usage.ru_stime
        peak = usage.ru_maxrss * 1024
        self.cost.peak = max(self.cost.peak, peak if peak > self.inherited else 0)

    def sample(self):
        if self.waiter.is_alive():
            self.cost.peak = max(self.cost.peak, high_water(self.popen.pid))

    def check(self):
        with self.log:
            if self.cost.code != 0:
                self.log.seek(0)
                log = self.log.read().decode(errors="replace")
                raise Failed(f"{self.name} ended with exit code {self.cost.code}\n{log[-2000:]}")


def high_water(pid):
    """The most memory that a process has occupied, as far as it is known."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def run(directory, *commands, each_line=None):
    """Runs the commands, each reading what the one before it writes. The last one's output goes to /dev/null, or to
    `each_line`, which also tells when the first line came."""
    processes = []
    with open(os.devnull, "r+b") as null:
        started = time.monotonic()
        source = null
        for number, command in enumerate(commands, 1):
            piped = number < len(commands) or each_line
            process = Process(command, source, subprocess.PIPE if piped else null, directory)
            if source is not null:
                # The writer has to notice when its reader goes.
                source.close()
            source = process.popen.stdout
            processes.append(process)
        over = threading.Event()
        sampler = threading.Thread(target=watch, args=(processes, over))
        sampler.start()
        first = None
        if each_line:
            for line in source:
                first = first or time.monotonic() - started
                each_line(line)
            source.close()
        for process in processes:
            process.waiter.join()
        over.set()
        sampler.join()
    # A target that failed is why its tap did.
    for process in reversed(processes):
        process.check()
    costs = [process.cost for process in processes]
    return Measured(max(cost.ended for cost in costs) - started, costs, first)


def watch(processes, over):
    while not over.wait(0.01):
        for process in processes:
            process.sample()
