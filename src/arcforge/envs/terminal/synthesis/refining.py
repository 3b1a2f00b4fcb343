"""Construct and refine: a model writes a task, machinery says what is wrong with it, the model mends it, a bounded number of times.

GLM-5 report, section 4.2.2: a construction agent, then a refinement against admission and rubric. What is told in each round
comes in the order of its price: the form, the rules, the sandbox, and the judge only for a task with which nothing else is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from arcforge.core.messages import Message, Value
from arcforge.envs.admission import Admission
from arcforge.envs.asking import Asker
from arcforge.envs.terminal.admission import admit
from arcforge.envs.terminal.harbor import HarborTask
from arcforge.envs.terminal.sandboxes import SandboxRunner
from arcforge.envs.terminal.synthesis.assembly import assemble
from arcforge.envs.terminal.synthesis.files import Malformed, parse_files, show_files
from arcforge.envs.terminal.synthesis.ideas import Candidate
from arcforge.envs.terminal.synthesis.judge import judged
from arcforge.envs.terminal.synthesis.prompts import HINTS, build_prompt, mend_prompt
from arcforge.envs.terminal.synthesis.rubric import CRITERIA, Finding
from arcforge.envs.terminal.synthesis.rules import decided


class Round(Value):
    """What was wrong with one answer. reasons: short codes that are counted ("format", "oracle", "rubric: typos"), none for a task
    that is kept; problems: as the model was told, one for each reason."""

    reasons: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Refined:
    """task: None when the last round still had something wrong."""

    task: HarborTask | None
    rounds: tuple[Round, ...]
    findings: tuple[Finding, ...] = ()


@dataclass
class Workshop:
    """Who builds, who judges and where tasks are tried."""

    constructor: Asker
    judge: Asker
    runner: SandboxRunner
    rounds: int = 4
    oracle_runs: int = 2


@dataclass
class _Seen:
    reasons: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def add(self, reason: str, problem: str) -> None:
        self.reasons.append(reason)
        self.problems.append(problem)

    @property
    def round(self) -> Round:
        return Round(reasons=tuple(self.reasons), problems=tuple(self.problems))


async def refine(candidate: Candidate, shop: Workshop, metadata: Mapping[str, Any]) -> Refined:
    """Up to `shop.rounds` answers. metadata: provenance, into task.toml.

    EngineError, GatewayError, RolloutTimeout: the model did not answer. JudgeError: the judge did not. SandboxError: the machine.
    """
    asked = Message(role="user", content=build_prompt(candidate.idea.model_dump(mode="json"), candidate.seed))
    messages, rounds = [asked], []
    for number in range(shop.rounds):
        seen, task, findings, answer = _Seen(), None, (), ""
        try:
            answer = await shop.constructor.answer(messages, candidate.name, turn=number)
            files = parse_files(answer)
            task = assemble(candidate.name, files, {**metadata, "rounds": number + 1})
            # The last answer is shown to the model once more, in the form that it was read in.
            answer = show_files(files)
        except Malformed as error:
            seen.add("format", f"Form: {error}")
        except ValueError as error:
            seen.add("cut off", f"Form: {error}; write less")
        if task is not None:
            findings = await _examine(task, shop, seen, f"{candidate.name}/judge/{number}")
        rounds.append(seen.round)
        if task is not None and not seen.reasons:
            return Refined(task, tuple(rounds), tuple(findings))
        messages = [
            asked,
            Message(role="assistant", content=answer),
            Message(role="user", content=mend_prompt(seen.problems)),
        ]
    return Refined(None, tuple(rounds))


async def _examine(task: HarborTask, shop: Workshop, seen: _Seen, session: str) -> list[Finding]:
    """All findings of the rubric, complete when nothing was added to `seen`."""
    ruled = decided(task)
    _note(list(ruled.values()), seen)
    admission = await admit(task, shop.runner, shop.oracle_runs)
    if not admission.admitted:
        seen.add(*_unfit(admission))
    if seen.reasons:
        return list(ruled.values())
    told = await judged(task, shop.judge, [name for name in CRITERIA if name not in ruled], session)
    _note(told, seen)
    return [*ruled.values(), *told]


def _note(findings: list[Finding], seen: _Seen) -> None:
    for finding in findings:
        if finding.mark == "fail":
            seen.add(f"rubric: {finding.criterion}", f"{CRITERIA[finding.criterion]} Here: {finding.reason}")


def _unfit(admission: Admission) -> tuple[str, str]:
    """(what was run when it came out as unfit, the problem in words)."""
    last = next(reversed(admission.outcomes), "environment")
    kind = re.sub(r"-\d+$", "", last)
    reason = kind if kind in ("environment", "oracle", "nothing") else f"probe: {kind}"
    printed = (
        f" The tests printed: {admission.output[-800:]!r}" if admission.output and kind in ("oracle", "nothing") else ""
    )
    return reason, f"{HINTS.get(kind, '')} {admission.reason}.{printed}".strip()
