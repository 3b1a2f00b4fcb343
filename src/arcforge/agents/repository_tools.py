"""The standard tools for work in a real repository: bash, read, edit, grep, python, submit, on any Sandbox."""

from __future__ import annotations

import errno
import textwrap
from typing import Any, cast

from pydantic import Field

from arcforge.agents.toolset import ANSWER_CHARS, Arguments, Tool, Toolset
from arcforge.core.errors import ToolError
from arcforge.core.messages import ToolSpec
from arcforge.core.protocols import ExecResult, Sandbox

SECONDS = 600
GREP_SECONDS = 60.0
READ_CHARS = ANSWER_CHARS - 500
LINE_CHARS = 2000
MATCHES, MATCH_CHARS = 100, 300
ENTRIES = 200
ARGUMENT_BYTES = 100_000
"""Below what Linux takes as one argument of a program (128 KiB)."""
NOT_SEARCHED = (".git", ".hg", "node_modules", "__pycache__", ".venv")


class BashArguments(Arguments):
    command: str = Field(description="The command line or script.")
    timeout: int = Field(120, ge=1, le=SECONDS, description="Seconds after which it is killed.")


class PythonArguments(Arguments):
    code: str = Field(description="The program; print what you want to see.")
    timeout: int = Field(120, ge=1, le=SECONDS, description="Seconds after which it is killed.")


class ReadArguments(Arguments):
    path: str = Field(description="A file, or a folder to list.")
    start: int = Field(1, ge=1, description="First line, from 1.")
    end: int = Field(0, ge=0, description="Last line; 0: to the end of the file.")


class EditArguments(Arguments):
    path: str = Field(description="The file.")
    old: str = Field(description="The text to replace, exactly as in the file; empty to make a new file.")
    new: str = Field(description="The text in its place.")


class GrepArguments(Arguments):
    pattern: str = Field(description="An extended regular expression.")
    path: str = Field(".", description="A file or folder.")
    glob: str = Field("", description="Only files of this name, such as *.py.")
    ignore_case: bool = Field(False, description="Whether upper and lower case are the same.")


class SubmitArguments(Arguments):
    pass


def repository_tools(sandbox: Sandbox, python: str = "python3") -> list[Tool[Any]]:
    """The six tools on `sandbox`, which has bash and grep. python: the interpreter of the python tool."""

    async def run_bash(arguments: BashArguments) -> str:
        # One stream, so that messages stand where they were printed; on a line of its own, so that a syntax error is told too.
        return await _run(sandbox, ["bash", "-c", f"exec 2>&1\n{arguments.command}"], arguments.timeout)

    async def run_python(arguments: PythonArguments) -> str:
        return await _run(sandbox, [python, "-c", arguments.code or "pass"], arguments.timeout)

    async def run_read(arguments: ReadArguments) -> str:
        return await read(sandbox, arguments.path, arguments.start, arguments.end)

    async def run_edit(arguments: EditArguments) -> str:
        return await edit(sandbox, arguments.path, arguments.old, arguments.new)

    async def run_grep(arguments: GrepArguments) -> str:
        return await grep(sandbox, arguments)

    async def run_submit(arguments: SubmitArguments) -> str:
        return "submitted"

    shell = "Each call is a new shell in the working directory: changed folders and variables do not last."
    return [
        Tool("bash", f"Run a bash command. {shell}", BashArguments, run_bash),
        Tool("read", "Read a text file with line numbers.", ReadArguments, run_read),
        Tool("edit", "Replace a text that occurs exactly once in a file.", EditArguments, run_edit),
        Tool("grep", "Search files for lines that match.", GrepArguments, run_grep),
        Tool("python", "Run a Python program in the working directory.", PythonArguments, run_python),
        Tool(
            "submit", "Hand in your work as it is now. Nothing can be done after it.", SubmitArguments, run_submit, True
        ),
    ]


def repository_specs() -> tuple[ToolSpec, ...]:
    """What a task says of them before there is a sandbox."""
    return Toolset(repository_tools(cast(Sandbox, None))).specs  # the handlers alone use it


async def read(sandbox: Sandbox, path: str, start: int = 1, end: int = 0) -> str:
    """Lines `start` to `end` (0: the last) with their numbers, as many as an answer holds; a folder's entries."""
    try:
        lines = (await sandbox.read(path)).removesuffix("\n").split("\n")
    except IsADirectoryError:
        return await _entries(sandbox, path)
    except (OSError, ValueError) as error:
        return _problem(path, error)
    if lines == [""]:
        return f"{path} is empty"
    last = min(end or len(lines), len(lines))
    if start > last:
        return f"{path} has {len(lines)} lines; there is none from {start} to {end or 'the end'}"
    shown, length = [], 0
    for number in range(start, last + 1):
        text = f"{number:6}\t{_cut(lines[number - 1], LINE_CHARS)}"
        length += len(text) + 1
        if length > READ_CHARS and shown:
            shown.append(f"[lines {start} to {number - 1} of {len(lines)}; read on from {number}]")
            break
        shown.append(text)
    return "\n".join(shown)


async def edit(sandbox: Sandbox, path: str, old: str, new: str) -> str:
    """Replace the only occurrence of `old`. An empty `old` makes a new file of a path that has none."""
    try:
        text = await sandbox.read(path)
    except FileNotFoundError as error:
        return _problem(path, error) if old else await _write(sandbox, path, new, f"{path} made")
    except (OSError, ValueError) as error:
        return _problem(path, error)
    if not old:
        return f"{path} exists already; name the text to replace. Nothing was changed"
    places = _places(text, old)
    if len(places) != 1:
        lines = ", ".join(str(text.count("\n", 0, place) + 1) for place in places[:10])
        found = f"{len(places)} times in {path} (lines {lines}); give more of the text around it" if places else ""
        return f"the old text occurs {found or f'nowhere in {path}{_hint(text, old)}'}. Nothing was changed"
    if old == new:
        return "old and new are the same. Nothing was changed"
    line = text.count("\n", 0, places[0]) + 1
    return await _write(sandbox, path, text.replace(old, new), f"{path} changed at line {line}")


async def grep(sandbox: Sandbox, arguments: GrepArguments) -> str:
    """The first MATCHES matching lines as path:line:text, by path. ToolError where the sandbox has no grep."""
    options = ["-rnHIEs", "--null", *(f"--exclude-dir={name}" for name in NOT_SEARCHED)]
    options += [f"--include={arguments.glob}"] if arguments.glob else []
    options += ["-i"] if arguments.ignore_case else []
    argv = ["grep", *options, "-e", arguments.pattern, "--", arguments.path]
    if refused := _refused(argv):
        return refused
    result = await sandbox.exec(argv, timeout=GREP_SECONDS)
    if result.exit_code == 127:
        raise ToolError(f"the sandbox has no grep: {result.stderr.strip()}")
    found = [line.split("\0", 1) for line in result.stdout.split("\n") if "\0" in line]
    matches = [
        f"{path.removeprefix('./')}:{_cut(rest, MATCH_CHARS)}" for path, rest in sorted(found, key=lambda one: one[0])
    ]
    notes = [f"[{len(matches) - MATCHES} more matches; narrow the search]"] if len(matches) > MATCHES else []
    notes += ["[there are more matches than the output holds; narrow the search]"] if result.truncated else []
    notes += [f"[stopped after {GREP_SECONDS:g} s; narrow the search]"] if result.timed_out else []
    if not matches and not notes:
        # With -s, no message means that the path cannot be read.
        return result.stderr.strip() or (
            "no match" if result.exit_code == 1 else f"{arguments.path}: cannot be searched"
        )
    return "\n".join([*matches[:MATCHES], *notes])


async def _run(sandbox: Sandbox, argv: list[str], timeout: int) -> str:
    if refused := _refused(argv):
        return refused
    return output(await sandbox.exec(argv, timeout=timeout), timeout)


def output(result: ExecResult, timeout: float) -> str:
    """What a command printed, and how it ended where that is not well."""
    parts = [text.rstrip("\n") for text in (result.stdout, result.stderr) if text.strip()] or ["(no output)"]
    if result.truncated:
        parts.append("[it printed more than is kept; the rest is lost]")
    if result.timed_out:
        parts.append(f"[killed after {timeout:g} s]")
    elif result.exit_code:
        parts.append(f"[exit code {result.exit_code}]")
    return "\n".join(parts)


async def _write(sandbox: Sandbox, path: str, text: str, said: str) -> str:
    try:
        await sandbox.write(path, text)
    except (OSError, ValueError) as error:
        return _problem(path, error)
    return said


async def _entries(sandbox: Sandbox, path: str) -> str:
    """What lies in a folder: files, and folders with a slash."""
    prefix = path.removeprefix("./").strip("/")
    prefix = "" if prefix in ("", ".") else f"{prefix}/"
    inside = [name.removeprefix(prefix) for name in await sandbox.files() if name.startswith(prefix)]
    entries = sorted({f"{first}/" if rest else first for first, _, rest in (name.partition("/") for name in inside)})
    more = [f"[{len(entries) - ENTRIES} more]"] if len(entries) > ENTRIES else []
    return "\n".join([f"{path} is a folder:", *entries[:ENTRIES], *more])


def _refused(argv: list[str]) -> str:
    """Why no program can be started with these arguments, whatever machine it is; empty if one can."""
    if any("\0" in argument for argument in argv):
        return "an argument has a NUL character"
    try:
        longest = max(len(argument.encode()) for argument in argv)
    except UnicodeEncodeError:
        return "an argument is not valid Unicode"
    return f"{longest} bytes are too many for one command; write them to a file" if longest > ARGUMENT_BYTES else ""


def _problem(path: str, error: Exception) -> str:
    match error:
        case FileNotFoundError():
            return f"{path}: no such file"
        case UnicodeDecodeError():
            return f"{path}: not a text file in UTF-8"
        case OSError(errno=errno.ENOTDIR):
            return f"{path}: a part of the path is a file"
        case OSError():
            return f"{path}: {error.strerror or error}"
        case _:
            return f"{path}: {error}"


def _places(text: str, part: str) -> list[int]:
    """Where `part` begins in `text`, overlapping occurrences included."""
    places, place = [], text.find(part)
    while place >= 0:
        places.append(place)
        place = text.find(part, place + 1)
    return places


def _hint(text: str, old: str) -> str:
    """What a model most often got wrong: the indentation, or the line numbers copied with the text."""
    if old.strip() and old.strip() in text:
        return ", but without the blank space at its ends it does"
    bare = textwrap.dedent(old).strip("\n").splitlines()
    stripped = [line.strip() for line in text.splitlines()]
    size = len(bare)
    wanted = [line.strip() for line in bare]
    if size and any(stripped[i : i + size] == wanted for i in range(len(stripped) - size + 1)):
        return "; its lines do with another indentation"
    return ""


def _cut(line: str, limit: int) -> str:
    return line if len(line) <= limit else f"{line[:limit]} [{len(line) - limit} more characters]"
