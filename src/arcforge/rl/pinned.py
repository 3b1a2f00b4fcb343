"""Weights that stay as they are while training goes on, until they have been evaluated: files between trainer and evaluator.

pinned/<version>/weights/...    hard links to a published version, which the publisher may then delete
pinned/<version>/pin.json       {"version", "step"}, written last
pinned/<version>.json           the evaluator's result; <version>.told.json once the trainer has put it among its metrics
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from arcforge.core.messages import Value
from arcforge.core.runs import atomic_write
from arcforge.rl.publish import Published

PIN = "pin.json"


class Pin(Value):
    """step: how many updates the weights of `version` have seen."""

    version: int
    step: int


class PinnedWeights:
    """The folder, for one trainer that pins and collects and one evaluator that takes and finishes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def pin(self, published: Published, step: int) -> None:
        """Keep a version for the evaluator; nothing happens when it is kept or evaluated already."""
        place = self._folder / str(published.version)
        if (place / PIN).exists() or self._results(published.version):
            return
        shutil.rmtree(place, ignore_errors=True)  # of a trainer that was killed
        shutil.copytree(published.folder, place / "weights", copy_function=_link)
        atomic_write(place / PIN, Pin(version=published.version, step=step).model_dump_json())

    def waiting(self) -> list[Pin]:
        """Those that are not evaluated yet, oldest first."""
        pins = [Pin.model_validate_json(path.read_bytes()) for path in self._folder.glob(f"*/{PIN}")]
        return sorted((pin for pin in pins if not self._results(pin.version)), key=lambda pin: pin.version)

    def weights(self, pin: Pin) -> Path:
        """A checkpoint folder."""
        return self._folder / str(pin.version) / "weights"

    def finish(self, pin: Pin, result: dict[str, Any]) -> None:
        """Write the result down, then let the weights go."""
        atomic_write(self._folder / f"{pin.version}.json", json.dumps({**pin.model_dump(), **result}))
        shutil.rmtree(self._folder / str(pin.version))

    def collect(self) -> list[dict[str, Any]]:
        """Results that were not collected before, by version."""
        files = [path for path in self._folder.glob("*.json") if path.stem.isdigit()]
        rows = []
        for path in sorted(files, key=lambda path: int(path.stem)):
            rows.append(json.loads(path.read_bytes()))
            os.replace(path, path.with_suffix(".told.json"))
        return rows

    def _results(self, version: int) -> bool:
        return any((self._folder / f"{version}{end}").exists() for end in (".json", ".told.json"))


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copy2(source, target)
