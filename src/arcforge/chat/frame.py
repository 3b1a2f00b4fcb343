"""How a chat template declares tools: the text around them and the form of their JSON.

Ours is compact, because a small model pays for every token. GLM-5's own template explains in a preamble and an epilogue how
to call a tool; that text is not ours to keep, so it is read from the checkpoint's chat_template.jinja, which is rendered
with two known tools and one known call.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from arcforge.chat.jinja import CHAT_TEMPLATE
from arcforge.core.errors import UserError
from arcforge.core.messages import ToolSpec

TEMPLATE_FILE = "chat_template.jinja"
Separators = tuple[str, str]
COMPACT: Separators = (",", ":")
SPACED: Separators = (", ", ": ")


@dataclass(frozen=True)
class ToolsFrame:
    """What stands around the tools, and how JSON is written. The defaults are our own template's.

    before: from [gMASK]<sop> to the first tool; between: from a tool to the next; after: behind the last. Control tokens
    in them are control. wrapped: a tool is written as {"type": "function", "function": tool}. The separators are those
    between items and behind keys.
    """

    before: str = "<|system|># Tools<tools>"
    between: str = "\n"
    after: str = "</tools>"
    wrapped: bool = False
    separators: Separators = COMPACT
    argument_separators: Separators = COMPACT


OUR_FRAME = ToolsFrame()


@dataclass(frozen=True)
class ChatTemplate:
    """The text of a chat_template.jinja and the frame of its tools."""

    text: str = CHAT_TEMPLATE
    frame: ToolsFrame = OUR_FRAME


OUR_TEMPLATE = ChatTemplate()


def load_template(folder: Path) -> ChatTemplate:
    """The template of a checkpoint folder; ours where it has none. UserError when its tools cannot be read off."""
    path = Path(folder) / TEMPLATE_FILE
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else CHAT_TEMPLATE
        return OUR_TEMPLATE if text == CHAT_TEMPLATE else ChatTemplate(text, read_frame(text))
    except (OSError, UnicodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    except UserError as error:
        raise UserError(f"{path}: {error}; without the file, arcforge's own template is used") from None


def tool_json(tool: ToolSpec, frame: ToolsFrame = OUR_FRAME) -> str:
    """A tool as the model reads it, on one line: name, then description and parameters where there are any."""
    return _json(_openai(tool) if frame.wrapped else _spec(tool), frame.separators)


def argument_text(value: Any, frame: ToolsFrame = OUR_FRAME) -> str:
    """An argument as it stands between <arg_value> and </arg_value>: a string as it is, all else as JSON."""
    return value if isinstance(value, str) else _json(value, frame.argument_separators)


_OPENING = "[gMASK]<sop>"
_SCHEMA = {"type": "object", "properties": {"größe": {"type": "integer"}}, "required": ["größe"]}
_PROBES = tuple(ToolSpec(name=f"probe_{i}", description="a probe", parameters=_SCHEMA) for i in "12")
_ARGUMENT = [1, {"größe": None}]
_CALL = {"type": "function", "function": {"name": "probe_1", "arguments": {"a": _ARGUMENT}}}
_MESSAGES = ({"role": "user", "content": "probe"}, {"role": "assistant", "content": "", "tool_calls": [_CALL]})


def read_frame(template: str) -> ToolsFrame:
    """The frame of any template that opens, declares tools and writes calls as GLM-5's does. UserError for all others."""
    shown, bare = _rendered(template, _PROBES), _rendered(template, ())
    if not (shown.startswith(_OPENING) and bare.startswith(_OPENING)):
        raise UserError(f"does not begin with {_OPENING}, so it is not of GLM-5's kind")
    rest = bare.removeprefix(_OPENING)
    for wrapped, separators in product((True, False), (SPACED, COMPACT)):
        form = ToolsFrame(wrapped=wrapped, separators=separators, argument_separators=_argument_separators(rest))
        before, _, behind = shown.removeprefix(_OPENING).partition(tool_json(_PROBES[0], form))
        between, found, after = behind.partition(tool_json(_PROBES[1], form))
        if found and after.endswith(rest):
            return replace(form, before=before, between=between, after=after.removesuffix(rest))
    raise UserError("does not write tools as one JSON object each, before the messages")


def _argument_separators(shown: str) -> Separators:
    for separators in (SPACED, COMPACT):
        if f"<arg_value>{_json(_ARGUMENT, separators)}</arg_value>" in shown:
            return separators
    raise UserError("does not write an argument as JSON between <arg_value> and </arg_value>")


def _rendered(template: str, tools: Sequence[ToolSpec]) -> str:
    """The template's text, with what transformers offers to one. It is a stranger's program: sandboxed, any error caught."""
    import jinja2.sandbox  # here, because only checkpoints of others need it

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _tojson
    try:
        compiled = environment.from_string(template)
        return compiled.render(messages=_MESSAGES, tools=[_openai(tool) for tool in tools] or None)
    except Exception as error:
        raise UserError(f"cannot be rendered: {' '.join(str(error).split()):.200}") from None


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: Separators | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _spec(tool: ToolSpec) -> dict[str, Any]:
    spec: dict[str, Any] = {"name": tool.name}
    if tool.description:
        spec["description"] = tool.description
    if tool.parameters:
        spec["parameters"] = tool.parameters
    return spec


def _openai(tool: ToolSpec) -> Mapping[str, Any]:
    return {"type": "function", "function": _spec(tool)}


def _json(value: Any, separators: Separators) -> str:
    return json.dumps(value, ensure_ascii=False, separators=separators)
