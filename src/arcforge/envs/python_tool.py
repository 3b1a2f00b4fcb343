"""The tool `python` of an episode: code run in a sandbox of the episode's own. Every call is a new interpreter; files stay."""

from __future__ import annotations

from pydantic import Field

from arcforge.agents.answers import capped
from arcforge.agents.toolset import Arguments, Tool
from arcforge.core.protocols import ExecResult, Sandbox
from arcforge.envs.code.running import Sandboxes

CALL_SECONDS = 10.0
MOST_CODE, MOST_OUTPUT = 50_000, 4000


class PythonArguments(Arguments):
    code: str = Field(max_length=MOST_CODE, description="The program.")


class PythonTool:
    """One episode's; the sandbox is made with the first call and deleted by close()."""

    def __init__(self, sandboxes: Sandboxes) -> None:
        self._sandboxes = sandboxes
        self._sandbox: Sandbox | None = None
        about = "Run Python code in a new interpreter; the output is what it prints."
        self.tool = Tool("python", about, PythonArguments, self._run)

    async def _run(self, arguments: PythonArguments) -> str:
        """What the code printed, at most MOST_OUTPUT characters, and how it ended if not well. Raises SandboxError."""
        self._sandbox = self._sandbox or self._sandboxes()
        return told(await self._sandbox.exec(["python", "-c", arguments.code], CALL_SECONDS))

    async def close(self) -> None:
        if self._sandbox:
            await self._sandbox.close()


def told(result: ExecResult) -> str:
    """The tool's text: output and errors, at most MOST_OUTPUT characters of them, then what went wrong."""
    output = result.stdout + (f"\n{result.stderr}" if result.stdout and result.stderr else result.stderr)
    text = capped(output, MOST_OUTPUT)
    if result.timed_out:
        return f"{text}\n(stopped after {CALL_SECONDS:g} s)".lstrip()
    if result.exit_code and not result.stderr:
        return f"{text}\n(exit code {result.exit_code})".lstrip()
    return text or "(no output; print what you want to see)"
