"""A family over a file: `gsm8k`, `humaneval`, `mbpp` or `problems`, with splits by hash or as the file is meant."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arcforge.core.errors import UserError
from arcforge.core.messages import Message, Thinking
from arcforge.core.protocols import Scorer, Verdict
from arcforge.core.tasks import Conversation, Split
from arcforge.envs.checking.client import Checker
from arcforge.envs.code.running import forked
from arcforge.envs.code.scorer import TestScorer
from arcforge.envs.files.formats import FORMATS, Row, last_hashes
from arcforge.envs.files.lines import read_rows
from arcforge.envs.math.answers import number
from arcforge.envs.math.scorer import MathScorer
from arcforge.envs.single_turn import SingleTurnTask, split_of
from arcforge.rewards.reply import final_reply
from arcforge.sandbox.fork import ForkServer

MAX_TOKENS = 4096


class HashesScorer:
    """A Scorer by `reference["answer"]`: 1.0 when the number after the last `####` has its value, else 0.0."""

    async def score(self, messages: Sequence[Message], reference: dict[str, Any]) -> Verdict:
        answer = last_hashes(final_reply(messages).content)
        value = number(answer) if answer is not None else None
        details = {"answer": (answer or "")[:200]} if answer is not None else {"note": "the reply has no line ####"}
        equal = value is not None and value == number(str(reference["answer"]))
        return Verdict(reward=1.0 if equal else 0.0, details=details)


class FileFamily:
    """Implements core.tasks.Family over the rows of one JSONL file, plain or gzipped.

    format: a name of files.formats.FORMATS. split: what all rows are (a test file, say); None hashes each row's content
    into train, dev and test, so that a row is of one split whatever the seed. Index i is row i of the split, in an order
    shuffled by `seed`, and begins again after the last. UserError for a bad file, row or an empty split.
    """

    domains: tuple[str, ...]

    def __init__(self, format: str, path: Path, seed: int = 0, split: Split | None = None) -> None:
        if format not in FORMATS:
            raise UserError(f"file format {format!r}: choose one of {', '.join(FORMATS)}")
        self.name, self.domains, self.path = format, (format,), path
        self._server, self._checker = ForkServer(), Checker()
        self._scorers: dict[str, Scorer] = {
            "hashes": HashesScorer(),
            "math": MathScorer(self._checker),
            "tests": TestScorer(forked(self._server)),
        }
        self._rows: dict[Split, list[tuple[int, Row]]] = {"train": [], "dev": [], "test": []}
        for number_, (where, row) in enumerate(read_rows(path)):
            read = FORMATS[format](row, where)
            self._rows[split or split_of(read.key)].append((number_, read))
        for name, rows in self._rows.items():
            random.Random(f"{format}:{seed}:{name}").shuffle(rows)

    def size(self, split: Split) -> int:
        """Rows of the split."""
        return len(self._rows[split])

    def task(self, split: Split, index: int) -> SingleTurnTask:
        place, row = self._row(split, index)
        return SingleTurnTask(
            task_id=f"{self.name}/{row.name or place}",
            family=self.name,
            domain=self.name,
            messages=_opening(row),
            scorer=self._scorers[row.graded],
            reference=row.reference,
            max_tokens=MAX_TOKENS,
        )

    def demonstration(self, index: int) -> Conversation:
        """The reference solution of row `index` of the train split. UserError when the file has none."""
        _, row = self._row("train", index)
        if row.demonstration is None:
            raise UserError(f"{self.path}: the rows have no solutions to demonstrate")
        messages = (*_opening(row), row.demonstration)
        return Conversation(messages=messages, thinking=Thinking(), family=self.name, domain=self.name)

    async def close(self) -> None:
        await self._server.close()
        await self._checker.close()

    def _row(self, split: Split, index: int) -> tuple[int, Row]:
        rows = self._rows[split]
        if not rows:
            raise UserError(f"{self.path}: no rows of the split {split}")
        return rows[index % len(rows)]


def _opening(row: Row) -> tuple[Message, ...]:
    return (Message(role="system", content=row.system), Message(role="user", content=row.question))
