"""Six tools on a Sandbox: test, list, read, search, edit, submit. A small model pays for each token of their specs, so only
what a name does not tell is described.

Every tool answers in text. A mistake of the model (no such file, text not found) is answered; only broken machinery raises.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from arcforge.core.messages import ToolCall, ToolSpec
from arcforge.core.protocols import Sandbox

OK, NOT_FOUND, NO_FILE, NONE, BAD_ARGUMENTS, NO_TOOL = (
    "ok",
    "not found",
    "no file",
    "none",
    "bad arguments",
    "no such tool",
)
ANSWER_CHARS = 4000


def _spec(name: str, description: str, *arguments: str) -> ToolSpec:
    properties = {argument: {"type": "string"} for argument in arguments}
    parameters = {"type": "object", "properties": properties} if arguments else {}
    return ToolSpec(name=name, description=description, parameters=parameters)


TOOLS: tuple[ToolSpec, ...] = (
    _spec("test", ""),
    _spec("list", ""),
    _spec("read", "", "path"),
    _spec("search", "files with text", "text"),
    _spec("edit", "replace in last file read", "old", "new"),
    _spec("submit", ""),
)
ARGUMENTS = {spec.name: tuple(spec.parameters.get("properties", ())) for spec in TOOLS}
OPTIONAL = {"edit": ("path",)}
"""Accepted but not advertised: `edit` works on the file read last unless it is told another."""


async def list_files(sandbox: Sandbox) -> str:
    return "\n".join(await sandbox.files()) or NONE


async def read(sandbox: Sandbox, path: str) -> str:
    try:
        return await sandbox.read(path)
    except (OSError, ValueError):
        return NO_FILE


async def search(sandbox: Sandbox, text: str) -> str:
    """Names of the files that contain `text`."""
    found = [path for path in await sandbox.files() if text in await _text(sandbox, path)]
    return "\n".join(found) or NONE


async def edit(sandbox: Sandbox, path: str, old: str, new: str) -> str:
    """Replace the first `old` by `new`. An empty `old` makes a new file of a path that has none."""
    try:
        text = await sandbox.read(path)
    except FileNotFoundError:
        if old:
            return NO_FILE
        text = ""
    except (OSError, ValueError):
        return NO_FILE
    else:
        if not old or old not in text:
            return NOT_FOUND
    try:
        await sandbox.write(path, text.replace(old, new, 1) if old else new)
    except (OSError, ValueError):
        return NO_FILE
    return OK


class Toolbox:
    """The tools of one episode. `run_tests` is what `test` calls; `done` after submit."""

    def __init__(self, sandbox: Sandbox, run_tests: Callable[[], Awaitable[str]]) -> None:
        self._sandbox, self._run_tests = sandbox, run_tests
        self.done = False
        self._last_read = ""

    async def call(self, call: ToolCall) -> str:
        """The answer to one call, at most ANSWER_CHARS long. Raises SandboxError or ToolError when machinery breaks."""
        wanted = ARGUMENTS.get(call.name)
        if wanted is None:
            return NO_TOOL
        arguments = call.arguments
        given = set(arguments) - set(OPTIONAL.get(call.name, ()))
        if given != set(wanted) or not all(isinstance(value, str) for value in arguments.values()):
            return BAD_ARGUMENTS
        text = await self._run(call.name, arguments)
        return text if len(text) <= ANSWER_CHARS else f"{text[:ANSWER_CHARS]}\n(cut)"

    async def _run(self, name: str, arguments: dict[str, str]) -> str:
        match name:
            case "test":
                return await self._run_tests()
            case "list":
                return await list_files(self._sandbox)
            case "read":
                self._last_read = arguments["path"]
                return await read(self._sandbox, **arguments)
            case "search":
                return await search(self._sandbox, **arguments)
            case "edit":
                return await edit(self._sandbox, **{"path": self._last_read, **arguments})
            case _:
                self.done = True
                return OK


async def _text(sandbox: Sandbox, path: str) -> str:
    try:
        return await sandbox.read(path)
    except (OSError, ValueError):
        return ""
