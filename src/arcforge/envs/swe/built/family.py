"""The environments of a manifest as a family: `manifest:FOLDER`."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

from arcforge.core.errors import UserError
from arcforge.core.tasks import Conversation, Split
from arcforge.envs.one_command import one_command
from arcforge.envs.swe.builder.manifest import TaskRow
from arcforge.envs.swe.built.places import Places
from arcforge.envs.swe.built.task import BuiltTask
from arcforge.sandbox.overlay import OverlaySandboxes

_TENTHS: dict[Split, range] = {"train": range(8), "dev": range(8, 9), "test": range(9, 10)}


class ManifestFamily:
    """Implements core.tasks.Family. A repository's tasks are all of one split; of each the order depends on the seed alone, and index i
    begins again after the last. Needs the network for the first task of a repository, and bubblewrap."""

    name = "manifest"
    domains = ("commit", "part", "bug")

    def __init__(self, seed: int, places: Places) -> None:
        self._places = places
        self._boxes: OverlaySandboxes | None = None
        self._rows: dict[Split, list[TaskRow]] = {split: [] for split in _TENTHS}
        for row in places.rows():
            self._rows[_split(row.repository)].append(row)
        for split, rows in self._rows.items():
            random.Random(f"manifest/{seed}/{split}").shuffle(rows)

    @classmethod
    def of(cls, folder: Path, seed: int = 0) -> ManifestFamily:
        """UserError: no manifest there."""
        return cls(seed, Places(folder))

    def task(self, split: Split, index: int) -> BuiltTask:
        """UserError where bubblewrap does not work, or the split has no repository."""
        rows = self._rows[split]
        if not rows:
            raise UserError(f"{self._places.manifest}: none of its repositories falls into {split}; add repositories")
        self._boxes = self._boxes or OverlaySandboxes()
        return BuiltTask(rows[index % len(rows)], self._places, self._boxes, self.name)

    def demonstration(self, index: int) -> Conversation:
        """The solution, applied as one patch."""
        task = self.task("train", index)
        gold = self._places.prepare(task.row).gold.decode(errors="replace")
        script = f"git apply --whitespace=nowarn - <<'END_OF_PATCH'\n{gold}END_OF_PATCH"
        return one_command(task, script)

    async def close(self) -> None:
        if self._boxes:
            await self._boxes.close()
        self._places.close()


def _split(repository: str) -> Split:
    tenth = int.from_bytes(hashlib.sha256(repository.encode()).digest()[:4]) % 10
    return next(split for split, tenths in _TENTHS.items() if tenth in tenths)
