"""A family of chosen tasks: those of another family that a measurement kept (evals.difficulty)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from arcforge.core.errors import UserError
from arcforge.core.messages import Value
from arcforge.core.tasks import Conversation, Family, Split, Task


class Selection(Value):
    """What a selection file says: the `indices` of `split` that were kept, of registry family `family` with `seed`."""

    family: str
    seed: int
    split: Split
    indices: tuple[int, ...]


class SelectedFamily:
    """Implements core.tasks.Family: index i of the selection's split is its index i, beginning again after the last. Other
    splits and demonstrations are those of the family inside. All say this family's name: a run tells its families apart by
    what tasks and rollouts say."""

    def __init__(self, inner: Family, selection: Selection) -> None:
        if not selection.indices:
            raise UserError(f"the selection of {selection.family} is empty; widen the range of pass rates")
        self._inner, self._selection = inner, selection
        self.name, self.domains = inner.name, inner.domains

    def task(self, split: Split, index: int) -> Task:
        indices = self._selection.indices
        task = self._inner.task(split, indices[index % len(indices)] if split == self._selection.split else index)
        return replace(cast(Any, task), family=self.name)  # every family's task is a dataclass with this field

    def demonstration(self, index: int) -> Conversation:
        return self._inner.demonstration(index).model_copy(update={"family": self.name})

    async def close(self) -> None:
        await self._inner.close()


def read_selection(path: Path) -> Selection:
    """UserError when the file is missing or is no selection."""
    try:
        return Selection.model_validate(json.loads(path.read_text()))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path}: no selection: {str(error).splitlines()[0]}") from None
