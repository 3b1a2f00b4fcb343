"""Real runs of the command line on the tiny recipe: started, watched, killed, started again."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from arcforge.core.runs import read_jsonl

RECIPE = Path(__file__).parent / "tiny.toml"
ARCFORGE = [sys.executable, "-c", "from arcforge.cli.main import app; app(prog_name='arcforge')"]
PATIENCE = 180.0


@dataclass
class TinyRun:
    """A run in `folder`; every start is the same command. `process` and `log` belong to the latest start."""

    folder: Path
    source: Path
    overrides: tuple[str, ...] = ()
    process: subprocess.Popen = field(init=False)
    starts: int = 0

    @property
    def command(self):
        values = (f"run.folder={self.folder}", f"data.source={self.source}", *self.overrides)
        return [*ARCFORGE, "run", str(RECIPE), *values]

    @property
    def log(self):
        return self.folder.parent / f"{self.folder.name}-{self.starts}.log"

    def start(self):
        self.starts += 1
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, start_new_session=True)
        return self

    def stage(self, name):
        return next((self.folder / "stages").glob(f"*-{name}"), self.folder / "none")

    def done(self, name):
        return (self.stage(name) / "done.json").exists()

    def rows(self, title=""):
        """Metric rows of one phase of training, or of all, in the order in which they were written."""
        return [row for row in read_jsonl(self.folder / "metrics.jsonl") if title in ("", row["stage"])]

    def until(self, condition):
        """Wait; the run must neither end nor take longer than PATIENCE before the condition holds."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert self.process.poll() is None or condition(), f"ended early:\n{self.log.read_text()}"
            assert time.monotonic() < deadline, f"nothing happened:\n{self.log.read_text()}"
            time.sleep(0.01)
        return self

    def until_step(self, title, step):
        seen = len(self.rows(title))  # rows of earlier starts do not count
        return self.until(lambda: any(row["step"] >= step for row in self.rows(title)[seen:]))

    def until_done(self, name):
        return self.until(lambda: self.done(name))

    def end(self, number):
        """Send a signal to the run alone; (exit code, seconds until it and all its children were gone)."""
        family = [self.process.pid, *descendants(self.process.pid)]
        started = time.monotonic()
        os.kill(self.process.pid, number)
        code = self.process.wait(PATIENCE)
        while any(alive(pid) for pid in family):
            assert time.monotonic() - started < 30, f"left behind: {[command_of(p) for p in family if alive(p)]}"
            time.sleep(0.01)
        return code, time.monotonic() - started

    def kill(self):
        return self.end(signal.SIGKILL)

    def weights(self, name):
        return (self.stage(name) / "checkpoint" / "model-00001-of-00001.safetensors").read_bytes()


def descendants(pid):
    """Process ids below `pid`, by the parents that /proc tells."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            continue
    found, front = [], [pid]
    while front:
        front = [child for child, parent in parents.items() if parent in front]
        found += front
    return found


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def done_json(run, stage):
    return json.loads((run.stage(stage) / "done.json").read_text())
