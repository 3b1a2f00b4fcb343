"""mini-swe-agent at work in a sandbox: the environment class that it asks for, over any sandbox of this house.

Its own configuration names the class by its path:

    environment:
      environment_class: arcforge.sandbox.mini_swe_agent.OverlayEnvironment
      folder: repository
      patch: fix.patch
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from arcforge.core.errors import SandboxError, UserError
from arcforge.core.messages import Value
from arcforge.core.protocols import ExecResult, Sandbox
from arcforge.core.runs import atomic_write
from arcforge.sandbox.folder import own_work
from arcforge.sandbox.overlay import OverlaySandboxes
from arcforge.sandbox.unified import diff_of

MARK = "COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"
"""mini-swe-agent's: the first line of the output of a command that submits."""
Run = Callable[[Coroutine[Any, Any, Any]], Any]
"""Waits for a coroutine from plain code, which is what mini-swe-agent is."""

# mini-swe-agent reads one text, what the command wrote to both in the order in which it did.
_TOGETHER = 'exec 2>&1; [ -z "$1" ] || cd -- "$1" || exit 1; shift; exec env -- "$@"'
_UNAME = 'for part in s n r v m; do uname "-$part"; done'
_UNAME_NAMES = ("system", "node", "release", "version", "machine")


class EnvironmentConfig(Value):
    """cwd: where commands run, the sandbox's own place if empty. env: set for them besides the sandbox's own. timeout: seconds."""

    cwd: str = ""
    env: dict[str, str] = {}
    timeout: float = 30.0


class OverlayConfig(EnvironmentConfig):
    """folder: what the agent works on; it stays as it is. patch: a file that holds, after every command, what the agent changed as
    far as it is text; `git apply` reads it. network: whether commands have the machine's own."""

    folder: Path
    patch: Path | None = None
    network: bool = False


class SandboxEnvironment:
    """Implements mini-swe-agent's Environment over a sandbox that its maker closes.

    run: how its coroutines are waited for; `within(loop)` where the sandbox belongs to a loop of another thread. What breaks in
    the sandbox is raised as SandboxError, which ends the agent, and is never an observation. UserError: no mini-swe-agent.
    """

    def __init__(self, sandbox: Sandbox, run: Run, config: EnvironmentConfig | None = None) -> None:
        self.config: EnvironmentConfig = config or EnvironmentConfig()
        self._sandbox, self._run, self._submitted = sandbox, run, _submitted()
        self._machine: dict[str, str] = {}

    def execute(self, action: Mapping[str, Any], cwd: str = "", *, timeout: float | None = None) -> dict[str, Any]:
        """The command's {output, returncode, exception_info}; -1 for one that was killed. Raises mini-swe-agent's Submitted."""
        seconds = timeout or self.config.timeout
        variables = [f"{name}={value}" for name, value in self.config.env.items()]
        command = [*variables, "bash", "-c", action.get("command", "")]
        argv = ["bash", "-c", _TOGETHER, "bash", cwd or self.config.cwd, *command]
        observation = _observation(self._run(self._sandbox.exec(argv, seconds)), seconds)
        first, _, rest = observation["output"].lstrip().partition("\n")
        if first.strip() == MARK and observation["returncode"] == 0:
            extra = {"exit_status": "Submitted", "submission": rest}
            raise self._submitted({"role": "exit", "content": rest, "extra": extra})
        return observation

    def get_template_vars(self, **more: Any) -> dict[str, Any]:
        """The settings and what `uname` says inside. Nothing of this process's own environment: prompts are recorded."""
        if not self._machine:
            told: ExecResult = self._run(self._sandbox.exec(["sh", "-c", _UNAME]))
            lines = told.stdout.splitlines()
            if told.exit_code or len(lines) != len(_UNAME_NAMES):
                raise SandboxError(f"uname ended with {told.exit_code}: {told.stderr.strip()[-200:]}")
            self._machine = dict(zip(_UNAME_NAMES, lines))
        return {**self.config.model_dump(mode="json"), **self._machine, **more}

    def serialize(self) -> dict[str, Any]:
        """Its part of mini-swe-agent's trajectory file."""
        kind = f"{type(self).__module__}.{type(self).__name__}"
        settings = self.config.model_dump(mode="json")
        return {"info": {"config": {"environment": settings, "environment_type": kind}}}

    def diff(self) -> str:
        """What was changed so far, version control, caches and dependency folders left out, as far as it is text."""
        return diff_of(own_work(self._run(self._sandbox.changes())))


class OverlayEnvironment(SandboxEnvironment):
    """The same over an overlay sandbox of its own, made of settings (OverlayConfig). Used by one thread at a time, in which no
    event loop runs. The sandbox ends with `close`, or with this process. UserError for settings that are wrong or where
    bubblewrap does not work."""

    def __init__(self, **settings: Any) -> None:
        self._settings = _checked(settings)
        _submitted()  # that it is missing is told before anything is started
        self._boxes, self._runner = OverlaySandboxes(), asyncio.Runner()
        spec = self._boxes.host(self._settings.folder, network=self._settings.network)
        super().__init__(self._runner.run(self._boxes.create(spec)), self._runner.run, self._settings)

    def execute(self, action: Mapping[str, Any], cwd: str = "", *, timeout: float | None = None) -> dict[str, Any]:
        """As every environment's, and brings the patch up to date, so that nothing is lost however the agent ends."""
        try:
            return super().execute(action, cwd, timeout=timeout)
        finally:
            if self._settings.patch:
                atomic_write(self._settings.patch, self.diff())

    def close(self) -> None:
        """The sandbox and its server are gone."""
        self._runner.run(self._boxes.close())
        self._runner.close()


def within(loop: asyncio.AbstractEventLoop) -> Run:
    """For a thread beside the one in which `loop` runs."""
    return lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop).result()


def _observation(done: ExecResult, seconds: float) -> dict[str, Any]:
    problem = ""
    if done.timed_out:
        problem = f"The command was killed: it took more than {seconds:g} seconds."
    elif done.out_of_memory:
        problem = "The command was killed: it needed more memory than there is."
    elif done.truncated:
        problem = "The output was longer than is kept; its end is missing."
    killed = done.timed_out or done.out_of_memory
    return {"output": done.stdout, "returncode": -1 if killed else done.exit_code, "exception_info": problem}


def _checked(settings: Mapping[str, Any]) -> OverlayConfig:
    try:
        config = OverlayConfig.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"environment.{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    if not config.folder.is_dir():
        raise UserError(f"environment.folder: {config.folder}: no such folder; name the repository to work on")
    return config


def _submitted() -> Callable[[dict[str, Any]], Exception]:
    """The exception with which an environment tells mini-swe-agent that its work is done."""
    try:
        return importlib.import_module("minisweagent.exceptions").Submitted
    except ImportError:
        raise UserError("this environment is mini-swe-agent's, which is missing: pip install mini-swe-agent") from None
