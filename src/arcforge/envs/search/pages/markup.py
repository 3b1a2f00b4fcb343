"""reStructuredText, Markdown and plain text to a page: header block, headings, paragraphs and inline links.

These are not full parsers: tables and code stay as lines, directives lose their first line and keep what they hold.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from arcforge.envs.search.pages.html_pages import resolve
from arcforge.envs.search.pages.page import Builder, Form, Page, split_field

_ADORNMENT = re.compile(r"([=\-~^\"'`#*+.:_<>])\1{2,}\s*")
_SHOUTED = re.compile(r"[A-Z][A-Z0-9 ,/&()-]{3,60}")
_HASHES = re.compile(r"(#{1,6})\s+(.*?)\s*#*\s*")
_FENCE = re.compile(r"\s*(```|~~~)")
_ITEM = re.compile(r"\s*(?:[-*+]|\d+[.)]|\(?[a-z]\))\s+")
_COLON_FIELD = re.compile(r":([A-Za-z][^:`]{0,40}):(?:\s+(.*))?$")
_DIRECTIVE = re.compile(r"\.\. ([\w-]+)::\s*(.*)")
_NOTE = {"versionadded": "New in version {}.", "versionchanged": "Changed in version {}.",
         "deprecated": "Deprecated since version {}."}  # fmt: skip


@dataclass(frozen=True)
class _Inline:
    """A pattern of inline markup: what is shown, and what it links to ("" for no link), from the match."""

    pattern: re.Pattern[str]
    shown: Callable[[re.Match[str]], str]
    target: Callable[[re.Match[str]], str]


def _none(match: re.Match[str]) -> str:
    return ""


RST = (
    _Inline(re.compile(r":(pep|rfc):`(?:[^`<]*<)?(\d+)[^`]*`"), lambda m: f"{m[1].upper()} {m[2]}",
            lambda m: f"{m[1].upper()} {m[2]}"),
    _Inline(re.compile(r":[\w:+-]+:`!?~?([^`<]*?)\s*<([^`>]*)>`"), lambda m: m[1], lambda m: m[2]),
    _Inline(re.compile(r":[\w:+-]+:`!?~?([^`]+)`"), lambda m: m[1], lambda m: m[1]),
    _Inline(re.compile(r"``(.+?)``"), lambda m: m[1], _none),
    _Inline(re.compile(r"`([^`<]+?)\s*<([^`>]+)>`__?"), lambda m: m[1], lambda m: m[2]),
    _Inline(re.compile(r"`([^`]+)`_{0,2}"), lambda m: m[1], lambda m: m[1]),
    _Inline(re.compile(r"\*\*(.+?)\*\*"), lambda m: m[1], _none),
    _Inline(re.compile(r"(?<![\w*])\*([^\s*][^*]*?)\*(?![\w*])"), lambda m: m[1], _none),
)  # fmt: skip
MARKDOWN = (
    _Inline(re.compile(r"`([^`]+)`"), lambda m: m[1], _none),
    _Inline(re.compile(r"!?\[([^\]]*)\]\(<?([^)\s>]+)>?[^)]*\)"), lambda m: m[1], lambda m: m[2]),
    _Inline(re.compile(r"\*\*(.+?)\*\*"), lambda m: m[1], _none),
    _Inline(re.compile(r"(?<![\w*])\*([^\s*][^*]*?)\*(?![\w*])"), lambda m: m[1], _none),
)
INLINE: dict[str, tuple[_Inline, ...]] = {"rst": RST, "md": MARKDOWN, "txt": ()}


def read_markup(page_id: str, text: str, form: Form) -> Page:
    """form: "rst", "md" or "txt"."""
    reader = _Reader(page_id, form)
    reader.read(text.expandtabs().replace("\r\n", "\n").split("\n"))
    return reader.page.build()


class _Reader:
    def __init__(self, page_id: str, form: Form) -> None:
        self.page, self._form = Builder(page_id, form), form
        self._styles: list[str] = []
        self._paragraph: list[str] = []

    def read(self, lines: list[str]) -> None:
        at = self._header(lines)
        while at < len(lines):
            at = self._step(lines, at)
        self._end_paragraph()

    def _header(self, lines: list[str]) -> int:
        """A block of "Key: value" lines (a mail header, YAML front matter) at the top; the line after it."""
        first = next((at for at, line in enumerate(lines) if line.strip()), len(lines))
        if self._form == "md" and lines[first : first + 1] == ["---"]:
            first += 1
        at, found = first, []
        while at < len(lines) and lines[at].strip() and lines[at].strip() != "---":
            line = lines[at]
            if found and line[:1] == " ":
                found[-1] = (found[-1][0], f"{found[-1][1]} {line.strip()}")
            elif field := split_field(line) or _colon_field(line):
                found.append(field)
            elif re.fullmatch(r"[A-Z][\w-]*:", line.strip()):
                found.append((line.strip()[:-1], ""))
            else:
                return first
            at += 1
        if len(found) < 2:
            return first
        for key, value in found:
            self._field(key, value)
        return at + (lines[at : at + 1] == ["---"])

    def _field(self, key: str, value: str) -> None:
        if key.casefold() == "title":
            self.page.title = value
        self.page.field(key, value, self.page.block(f"{key}: {value}"))

    def _step(self, lines: list[str], at: int) -> int:
        """Take the block that begins in line `at`; the line after it."""
        line = lines[at]
        if not line.strip():
            self._end_paragraph()
            return at + 1
        if taken := self._heading(lines, at):
            return at + taken
        if self._form == "md" and _FENCE.match(line):
            return self._code(lines, at + 1, lambda text: _FENCE.match(text) is not None) + 1
        if self._form == "rst":
            if line.startswith(".. "):
                return self._directive(lines, at)
            if field := _colon_field(line):
                self._end_paragraph()
                self._field(*field)
                return at + 1
        if _ITEM.match(line):
            self._end_paragraph()
        self._paragraph.append(line)
        literal = (
            self._form == "rst" and line.rstrip().endswith("::") and not (lines[at + 1 : at + 2] or ["x"])[0].strip()
        )
        if literal:
            self._end_paragraph()
            indent = len(line) - len(line.lstrip())
            return self._code(lines, at + 1, lambda text: bool(text.strip()) and _indent(text) <= indent)
        return at + 1

    def _heading(self, lines: list[str], at: int) -> int:
        """How many lines the heading at `at` takes; 0 when there is none."""
        line, following = lines[at], ([*lines[at + 1 : at + 3], "", ""])[:2]
        if self._form == "md" and (match := _HASHES.fullmatch(line)):
            self._add_heading(len(match[1]), match[2])
            return 1
        if (
            self._form == "rst"
            and _ADORNMENT.fullmatch(line)
            and following[0].strip()
            and following[1].rstrip() == line.rstrip()
        ):
            self._add_heading(self._level("over" + line[0]), following[0])
            return 3
        underlined = not self._paragraph and _ADORNMENT.fullmatch(following[0]) and line[0] != " "
        if underlined and not _ADORNMENT.fullmatch(line) and len(following[0].rstrip()) >= len(line.rstrip()) - 2:
            self._add_heading(self._level(following[0][0]), line)
            return 2
        if (
            self._form == "txt"
            and not self._paragraph
            and _SHOUTED.fullmatch(line)
            and not following[0].startswith(line[:1])
        ):
            self._add_heading(2, line)
            return 1
        return 0

    def _level(self, style: str) -> int:
        if style not in self._styles:
            self._styles.append(style)
        return self._styles.index(style) + 1

    def _add_heading(self, level: int, text: str) -> None:
        self._end_paragraph()
        self._inline(text.strip())
        shown, self.page.buffer = self.page.buffer.strip(), ""
        self.page.end_block()
        if level == 1 and not self.page.title:
            self.page.title = shown
        self.page.heading(level, shown)

    def _directive(self, lines: list[str], at: int) -> int:
        """Comments and targets are dropped with their indented lines; of directives the argument and options are."""
        self._end_paragraph()
        match = _DIRECTIVE.match(lines[at])
        if match and match[1] in _NOTE:
            self.page.block(_NOTE[match[1]].format(match[2].partition(" ")[0]))
        at += 1
        while at < len(lines) and (not match or _colon_field(lines[at].strip())) and lines[at][:1] == " ":
            at += 1
        if match and match[1] in ("code", "code-block", "sourcecode", "parsed-literal", "highlight"):
            return self._code(lines, at, lambda text: bool(text.strip()) and text[:1] != " ")
        return at

    def _code(self, lines: list[str], at: int, ends: Callable[[str], bool]) -> int:
        self._end_paragraph()
        first = at
        while at < len(lines) and not ends(lines[at]):
            at += 1
        self.page.block("\n".join(line.rstrip() for line in lines[first:at]).strip("\n"))
        return at

    def _end_paragraph(self) -> None:
        lines, self._paragraph = self._paragraph, []
        if lines and any(_ADORNMENT.fullmatch(line.strip()) or re.match(r"\s*[+|]", line) for line in lines):
            self.page.block("\n".join(line.rstrip() for line in lines))
            return
        self._inline(" ".join(line.strip() for line in lines))
        self.page.end_block()

    def _inline(self, text: str) -> None:
        """Write text with its inline markup taken off."""
        rules, at = INLINE[self._form], 0
        while True:
            found = [(match, rule) for rule in rules if (match := rule.pattern.search(text, at))]
            if not found:
                break
            match, rule = min(found, key=lambda pair: (pair[0].start(), rules.index(pair[1])))
            self.page.inline(text[at : match.start()])
            start = len(self.page.buffer)
            self.page.inline(rule.shown(match))
            if target := rule.target(match):
                self.page.link(start, resolve(self.page.page_id, target) if _is_path(target) else target)
            at = match.end()
        self.page.inline(text[at:])


def _is_path(target: str) -> bool:
    return "/" in target or target.startswith("#") or re.search(r"\.(html?|rst|md|txt)(#|$)", target) is not None


def _colon_field(line: str) -> tuple[str, str] | None:
    match = _COLON_FIELD.fullmatch(line.rstrip())
    return (match[1], match[2] or "") if match else None


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
