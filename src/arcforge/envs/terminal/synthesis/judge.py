"""The judge of a task: a model that marks the criteria which no rule decides, read strictly.

GLM-5 report, section 4.2.2. An answer that cannot be read is asked for again and then is a JudgeError, never a pass.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from arcforge.core.errors import JudgeError
from arcforge.core.messages import Message
from arcforge.envs.asking import Asker, unfenced
from arcforge.envs.terminal.harbor import HarborTask
from arcforge.envs.terminal.synthesis.assembly import standard_checks
from arcforge.envs.terminal.synthesis.prompts import judge_prompt
from arcforge.envs.terminal.synthesis.rubric import MARKS, Finding

LONGEST_FILE = 20_000
"""Characters of one file that the judge is shown."""
_OURS = ("tests/check.py", "tests/test.sh")


async def judged(task: HarborTask, asker: Asker, criteria: Sequence[str], session: str) -> list[Finding]:
    """A finding for each of the criteria. JudgeError without a readable answer; EngineError, GatewayError, RolloutTimeout."""
    if not criteria:
        return []
    messages = [Message(role="user", content=judge_prompt(_shown(task), criteria))]
    return await asker.read(messages, session, lambda text: read_findings(text, criteria), JudgeError)


def read_findings(text: str, criteria: Sequence[str]) -> list[Finding]:
    """ValueError unless exactly these criteria are marked, each with a reason."""
    try:
        data: Any = json.loads(unfenced(text), object_pairs_hook=_once)
    except ValueError as error:
        raise ValueError(f"no JSON object of findings: {error}") from None
    if not isinstance(data, dict) or set(data) != set(criteria):
        raise ValueError(f"the keys are not {', '.join(criteria)}")
    return [_finding(name, data[name]) for name in criteria]


def _finding(name: str, told: Any) -> Finding:
    if not isinstance(told, dict) or set(told) != {"mark", "reason"} or told["mark"] not in MARKS:
        raise ValueError(f"{name}: a mark of {', '.join(MARKS)} and a reason are wanted")
    if not isinstance(told["reason"], str) or not told["reason"].strip():
        raise ValueError(f"{name}: no reason is given")
    return Finding(criterion=name, mark=told["mark"], reason=told["reason"].strip(), by="judge")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A criterion that is marked twice is marked in no way."""
    if len(found := dict(pairs)) != len(pairs):
        raise ValueError("a key comes twice")
    return found


def _shown(task: HarborTask) -> dict[str, str]:
    """The files of a task as text, without the checker that every generated task has."""
    files = {"instruction.md": task.instruction}
    standard = _OURS if standard_checks(task) is not None else ()
    for path, raw in task.files.items():
        if path not in standard:
            files[path] = raw.decode("utf-8", "replace")[:LONGEST_FILE]
    return files
