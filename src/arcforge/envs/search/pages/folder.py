"""A folder of pages: which files are pages, what stands for what, and reading them one by one."""

from __future__ import annotations

import fnmatch
import gzip
import hashlib
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from arcforge.core.errors import UserError
from arcforge.envs.search.pages.html_pages import read_html
from arcforge.envs.search.pages.manual import check_renderer, read_manual, redirect_of
from arcforge.envs.search.pages.markup import read_markup
from arcforge.envs.search.pages.page import Form, Page

LARGEST_BYTES = 1_000_000
FEWEST_WORDS = 20

_SUFFIXES: dict[str, Form] = {
    ".html": "html", ".htm": "html", ".xhtml": "html", ".rst": "rst", ".md": "md", ".markdown": "md", ".txt": "txt",
}  # fmt: skip
_MANUAL = re.compile(r"(?P<name>.+(?<!\.so))\.(?P<section>\d[a-z]{0,8})")
_PLAIN = re.compile(
    r"(?:copyright|readme|news|authors|thanks|credits|todo|faq|bugs|changes|changelog|history)(?:\.debian)?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class RawPage:
    """A file as it lies in the folder. page_id: its path there, "/"-separated, without ".gz"."""

    page_id: str
    form: Form
    data: bytes

    @property
    def digest(self) -> str:
        return hashlib.blake2b(self.form.encode() + b"\0" + self.data, digest_size=16).hexdigest()


@dataclass(frozen=True)
class Listing:
    """paths: page id to file. redirects: a page id that is only a link, to the page id it stands for. skipped: by suffix."""

    paths: dict[str, Path]
    redirects: dict[str, str]
    skipped: dict[str, int]


def list_folders(folders: Sequence[Path], skip: Sequence[str] = ()) -> Listing:
    """All pages below the folders, in order of their ids. UserError when there are none, or two folders have one name.

    With more than one folder every id begins with its folder's name. skip: patterns of ids to leave out, as in a shell.
    """
    listing = Listing({}, {}, {})
    for folder, name in zip(folders, _names(folders)):
        _list_folder(folder, f"{name}/" if len(folders) > 1 else "", skip, listing)
    if not listing.paths:
        told = ", ".join(str(folder) for folder in folders)
        raise UserError(f"{told}: no page here; pages end in {', '.join(_SUFFIXES)} or are manual pages like open.2")
    if any(form_of(page_id) == "man" for page_id in listing.paths):
        check_renderer()
    return Listing(dict(sorted(listing.paths.items())), dict(sorted(listing.redirects.items())), listing.skipped)


def _names(folders: Sequence[Path]) -> list[str]:
    names = [folder.resolve().name for folder in folders]
    for name, count in Counter(names).items():
        if count > 1:
            told = " and ".join(str(folder) for folder, own in zip(folders, names) if own == name)
            raise UserError(f"{told}: both are called {name}, which their pages' ids begin with; rename one")
    return names


def _list_folder(folder: Path, prefix: str, skip: Sequence[str], listing: Listing) -> None:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name the folder that holds the pages")
    root = folder.resolve()
    for path in sorted(_files(folder)):
        page_id = prefix + path.relative_to(folder).as_posix().removesuffix(".gz")
        if any(fnmatch.fnmatchcase(page_id, pattern) for pattern in skip):
            listing.skipped["asked for"] = listing.skipped.get("asked for", 0) + 1
        elif form_of(page_id) is None:
            suffix = Path(page_id).suffix or "none"
            listing.skipped[suffix] = listing.skipped.get(suffix, 0) + 1
        elif path.is_symlink():
            target = path.resolve()
            if target.is_relative_to(root) and target.is_file():
                listing.redirects[page_id] = prefix + target.relative_to(root).as_posix().removesuffix(".gz")
        else:
            listing.paths.setdefault(page_id, path)


def form_of(page_id: str) -> Form | None:
    """By the name alone; None for a file that is no page."""
    name = Path(page_id).name
    if _PLAIN.fullmatch(name):
        return "txt"
    form = _SUFFIXES.get(Path(page_id).suffix.lower())
    return "man" if form is None and _MANUAL.fullmatch(name) else form


def load(page_id: str, path: Path) -> RawPage:
    """ValueError for a file that is too large, damaged, or not a page by its name."""
    form = form_of(page_id)
    if form is None:
        raise ValueError("not the name of a page")
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            data = file.read(LARGEST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"cannot be read: {error}") from None
    if len(data) > LARGEST_BYTES:
        raise ValueError(f"larger than {LARGEST_BYTES} bytes")
    return RawPage(page_id, form, data)


def redirect_target(raw: RawPage) -> str:
    """The page id that a manual page of one `.so` line stands for; empty for a page of its own."""
    if raw.form != "man" or len(raw.data) > 2000:
        return ""
    included = redirect_of(_decoded(raw.data))
    root = Path(raw.page_id).parent.parent.as_posix()
    return included if not included or root == "." else f"{root}/{included}"


def read(raw: RawPage) -> Page:
    """The cleaned page. ValueError, with the reason, for one that cannot be read or says next to nothing."""
    text = _decoded(raw.data)
    if raw.form == "html":
        page = read_html(raw.page_id, text)
    elif raw.form == "man":
        name = _MANUAL.fullmatch(Path(raw.page_id).name)
        if name is None:
            raise ValueError("not the name of a manual page")
        page = read_manual(raw.page_id, text, name["name"], name["section"])
    else:
        page = read_markup(raw.page_id, text, raw.form)
    if len(page.text.split()) < FEWEST_WORDS:
        raise ValueError(f"fewer than {FEWEST_WORDS} words")
    return page


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in names if not name.startswith("."))


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")
