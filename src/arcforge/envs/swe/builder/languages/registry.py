"""What installs for a language other than Python, by its name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from arcforge.envs.swe.builder.clone import Clone
from arcforge.envs.swe.builder.languages import golang, java, javascript, native, php, ruby
from arcforge.envs.swe.builder.languages.scripted import Scripted

Installer = Callable[[Clone, str, Path, Sequence[str] | None], Scripted]
"""(clone, commit, folder, requirements or None to resolve them) to what tests run in, kept in the folder. Rejected("install") when it
does not manage; UserError when this machine lacks a toolchain."""

INSTALLERS: dict[str, Installer] = {
    "javascript": partial(javascript.install, "javascript"),
    "typescript": partial(javascript.install, "typescript"),
    "c": partial(native.install, "c"),
    "cpp": partial(native.install, "cpp"),
    "go": golang.install,
    "java": java.install,
    "ruby": ruby.install,
    "php": php.install,
}
