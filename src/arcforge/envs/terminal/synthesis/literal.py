"""Whether a shell script works something out, or only writes down what its author knew."""

from __future__ import annotations

import re
import shlex

_WRITERS = frozenset(
    {"echo", "printf", "cat", "tee", "mkdir", "cd", "set", "touch", "true", ":", "export", "chmod", "umask", "exit"}
)
_HEREDOC = re.compile(r"<<-?\s*(['\"]?)(\w+)\1")
# Programs and settings: to write one is the task itself, not its answer.
_PROGRAM = re.compile(
    r"\.(?:py|sh|bash|awk|sed|sql|c|cc|cpp|h|pl|js|ts|rb|go|rs|java|m4|mk|service|timer|conf|cfg|ini|toml|ya?ml|env|patch)$"
    r"|(?:^|/)\.?[\w-]+$"
)
_COMPUTED = re.compile(r"\$\(|`|<\(|\$\(\(|\$\{?[A-Za-z_]|(?<!<)<(?![<(])")


def writes_it_down(script: str) -> list[str] | None:
    """The lines that it writes, when it does nothing else; None when it does, or when what it writes is a program (to write
    one is to do the task), or when this cannot be told."""
    commands, bodies = _without_heredocs(script)
    if bodies is None:
        return None
    written = list(bodies)
    for line in commands:
        if _COMPUTED.search(line):
            return None
        for command in re.split(r"&&|\|\||;|(?<!>)\|", line):
            told = _command(command)
            if told is None:
                return None
            written += told
    return [text for text in (line.strip() for line in written) if text]


def _command(command: str) -> list[str] | None:
    """What one simple command writes; None when it may do more."""
    try:
        words = shlex.split(command, comments=True)
    except ValueError:
        return None
    if not words:
        return []
    if words[0] not in _WRITERS:
        return None
    target = next((i for i, word in enumerate(words) if word.lstrip("12&").startswith(">")), len(words))
    name = "".join(words[target:]).lstrip("12&>")
    if words[0] in ("echo", "printf") and name and _PROGRAM.search(name):
        return None
    if words[0] in ("cat", "tee"):
        return [] if words[0] == "tee" or not [word for word in words[1:target] if not word.startswith("-")] else None
    said = [word for word in words[1:target] if word not in ("-e", "-n", "-en", "-ne")]
    return " ".join(said).replace("\\n", "\n").split("\n") if words[0] in ("echo", "printf") else []


def _without_heredocs(script: str) -> tuple[list[str], list[str] | None]:
    """(the script's lines without here-documents, what those say); None for the second when one of them is a program."""
    commands, bodies, end = [], [], ""
    for line in re.sub(r"\\\n", " ", script).split("\n"):
        if end:
            if line.strip() == end:
                end = ""
            else:
                bodies.append(line)
            continue
        if found := _HEREDOC.search(line):
            end, rest = found[2], line[: found.start()] + line[found.end() :]
            target = re.search(r">>?\s*(\S+)", rest)
            if target is None or _PROGRAM.search(target[1].strip("'\"")):
                return commands, None
            line = rest
        if not line.startswith("#!"):
            commands.append(line)
    return commands, bodies
