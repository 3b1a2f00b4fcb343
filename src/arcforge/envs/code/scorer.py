"""The reward of a program: 1.0 when every hidden test passes, else 0.0."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from arcforge.core.errors import TaskError
from arcforge.core.messages import Message
from arcforge.core.protocols import Verdict
from arcforge.envs.code.running import Program, Sandboxes, run_tests
from arcforge.rewards.reply import final_reply

MOST_CHARACTERS = 100_000
_BLOCK = re.compile(r"^[ \t]*```[ \t]*(?:python|py|python3)?[ \t]*\n(.*?)^[ \t]*```[ \t]*$", re.M | re.S | re.I)


def last_block(text: str) -> str | None:
    """The last fenced block of Python; None where there is none."""
    blocks = _BLOCK.findall(text)
    return blocks[-1] if blocks else None


class TestScorer:
    """A Scorer by `reference["program"]`, a code.running.Program. Raises SandboxError, VerifierError or TaskError when the
    tests cannot be run; a solution that crashes or hangs earns 0.0."""

    __test__ = False  # no test class for pytest

    def __init__(self, sandboxes: Sandboxes) -> None:
        self._sandboxes = sandboxes

    async def score(self, messages: Sequence[Message], reference: dict[str, Any]) -> Verdict:
        try:
            program = Program.model_validate(reference.get("program"))
        except ValidationError as error:
            raise TaskError(f"the task's program: {error.errors()[0]['msg']}") from None
        code = last_block(final_reply(messages).content)
        if code is None or len(code) > MOST_CHARACTERS:
            return Verdict(reward=0.0, details={"note": "the reply has no block of Python code"})
        report = await run_tests(self._sandboxes, code, program)
        passed = report.passed == report.total > 0
        details = {
            "passed": report.passed,
            "total": report.total,
            **({"problem": report.problem} if not passed else {}),
        }
        return Verdict(reward=1.0 if passed else 0.0, details=details)
