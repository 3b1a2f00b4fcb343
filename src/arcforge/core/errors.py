"""Failures with a type and a place. A failure is data about the infrastructure and never becomes a score.

`UserError` is for people: one line that says what is wrong, where, and what to do; the command line prints it and exits
with 2. `BoundaryError` and its kinds are for rollouts: `rollout` turns them into a `Failure` in the trajectory.
"""

from __future__ import annotations

import errno
from typing import Literal

from pydantic import BaseModel, ConfigDict

Boundary = Literal["engine", "gateway", "agent", "tool", "sandbox", "task", "verifier", "judge", "timeout"]

# What OSError.errno says when the disk is full, too small a share of it is ours, or it may not be written.
DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM})


class UserError(Exception):
    """Bad input or environment, told in one line. The command line exits with code 2."""


class Failure(BaseModel):
    """Where and why a rollout failed."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    boundary: Boundary
    reason: str


class BoundaryError(Exception):
    """A failure at one boundary of a rollout; `boundary` names it."""

    boundary: Boundary = "task"

    def failure(self) -> Failure:
        return Failure(boundary=self.boundary, reason=f"{type(self).__name__}: {self}")


class EngineError(BoundaryError):
    boundary = "engine"


class GatewayError(BoundaryError):
    boundary = "gateway"


class AgentError(BoundaryError):
    """An agent that is a program of its own was ended by a signal, or ended before the model had said anything."""

    boundary = "agent"


class ToolError(BoundaryError):
    """The tool's own machinery broke. A tool that reports a mistake of the model returns text instead."""

    boundary = "tool"


class SandboxError(BoundaryError):
    boundary = "sandbox"


class TaskError(BoundaryError):
    boundary = "task"


class VerifierError(BoundaryError):
    """The tests did not run, or do not say what came out."""

    boundary = "verifier"


class JudgeError(BoundaryError):
    boundary = "judge"


class RolloutTimeout(BoundaryError):
    boundary = "timeout"
