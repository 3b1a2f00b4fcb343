"""Manual pages to a page, rendered by groff (part of every system that can show manual pages)."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess

from arcforge.core.errors import UserError
from arcforge.envs.search.pages.page import Builder, Page

SECONDS = 30.0
# One line per paragraph, no hyphens, no bold and underlined text.
GROFF = ("groff", "-Tutf8", "-mandoc", "-t", "-Kutf8", "-P-cbou", "-rLL=30000n", "-rHY=0", "-dAD=l")

_REFERENCE = re.compile(r"(?<![\w/.])([A-Za-z_][\w.:+-]*)\s?\((\d[a-z]{0,5})\)")
_TITLE = re.compile(r"^\.TH\s+(.*)$", re.MULTILINE)
_DATE = re.compile(r"^\.Dd\s+(.*)$", re.MULTILINE)
_INCLUDED = re.compile(r"\.so\s+(\S+)\s*")
_DASH = re.compile(r"\s+[-\u2010-\u2015\u2212]+\s+")
_KEYS = ("date", "source", "manual")


def redirect_of(text: str) -> str:
    """The file that a page of nothing but `.so FILE` stands for; empty for a page of its own."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith(('.\\"', "'\\\""))]
    match = _INCLUDED.fullmatch(lines[0].strip()) if len(lines) == 1 else None
    return match[1] if match else ""


def check_renderer() -> None:
    """UserError unless groff is here."""
    if shutil.which(GROFF[0]) is None:
        raise UserError("manual pages are rendered by groff, which is not installed; install it or leave them out")


def read_manual(page_id: str, text: str, name: str, section: str) -> Page:
    """name, section: of the file's name. ValueError when groff makes nothing of it."""
    try:
        done = subprocess.run(
            GROFF, input=text.encode(), capture_output=True, timeout=SECONDS, check=False
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ValueError(f"groff took more than {SECONDS:g} s") from None
    shown = done.stdout.decode(errors="replace")
    if not shown.strip():
        raise ValueError(f"groff wrote nothing: {done.stderr.decode(errors='replace').strip()[:120]}")
    page = Builder(page_id, "man")
    page.title = f"{name}({section})"
    _header_fields(page, text)
    _blocks(page, shown.splitlines())
    return page.build()


def _header_fields(page: Builder, text: str) -> None:
    """Date, source and manual of `.TH name section date source manual`, or the date of `.Dd`."""
    values: list[str] = []
    if match := _TITLE.search(text):
        try:
            values = shlex.split(match[1].replace("\\-", "-").replace("\\ ", " "))[2:]
        except ValueError:
            values = []
    elif match := _DATE.search(text):
        values = [re.sub(r"^\$Mdocdate:\s*|\s*\$$", "", match[1].strip())]
    for key, value in zip(_KEYS, values):
        if value.strip():
            page.field(key, value, page.block(f"{key}: {' '.join(value.split())}"))


def _blocks(page: Builder, lines: list[str]) -> None:
    """groff sets headings at column 0, subheadings at 3, text deeper. The first and last lines are the page's frame."""
    full = [at for at, line in enumerate(lines) if line.strip()]
    for at in full[1:-1]:
        line = lines[at]
        text, indent = " ".join(line.split()), len(line) - len(line.lstrip())
        if indent == 0:
            page.heading(1, text)
        elif indent <= 3:
            page.heading(2, text)
        elif page.last_heading == "NAME" and not page.summary:
            _name_line(page, text)
        else:
            _paragraph(page, text)


def _name_line(page: Builder, text: str) -> None:
    names, _, summary = _DASH.sub("\0", text, count=1).partition("\0")
    page.summary = summary
    page.names = tuple(name.strip() for name in names.split(",") if name.strip()) if summary else ()
    page.block(text)


def _paragraph(page: Builder, text: str) -> None:
    at = 0
    for match in _REFERENCE.finditer(text):
        page.inline(text[at : match.start()])
        start = len(page.buffer)
        page.inline(match[0])
        page.link(start, f"{match[1]}({match[2]})")
        at = match.end()
    page.inline(text[at:])
    page.end_block()
