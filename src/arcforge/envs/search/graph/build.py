"""From folders of pages to the graph, and from a changed folder to the changed graph: only what changed is read again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from arcforge.core.messages import Value
from arcforge.envs.search.extract.facts import Name
from arcforge.envs.search.extract.rules import RULES_VERSION, extract
from arcforge.envs.search.graph.align import consolidate
from arcforge.envs.search.graph.store import GraphStore
from arcforge.envs.search.pages.folder import Listing, list_folders, load, read, redirect_target

EVERY = 500


class Update(Value):
    """What one call did, and left_out: all pages that cannot be read or say next to nothing, by reason, of earlier calls too.
    read: pages taken into the graph by this call. unchanged: known from an earlier call. unread: left for a later call.
    """

    listed: int
    read: int
    unchanged: int
    unread: int
    removed: int
    redirects: int
    left_out: dict[str, int]


def update(
    store: GraphStore,
    folders: Sequence[Path],
    skip: Sequence[str] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
    seconds: float = math.inf,
) -> Update:
    """Bring the graph to the state of the folders. Can be stopped at any moment and called again.

    seconds: after so much time no further page is read, and the graph is one of the pages read until then.

    Pages of equal content are one page, under the first of their ids; the others are redirects to it.
    """
    listing = list_folders(folders, skip)
    known = store.digests()
    pages, redirects = _originals(listing)
    read_count = unchanged = unread = 0
    deadline = time.monotonic() + seconds
    for page_id in sorted(set(known) - set(pages)):
        store.remove(page_id)
    for done, (page_id, digest) in enumerate(pages.items()):
        if known.get(page_id) == digest:
            unchanged += 1
        elif time.monotonic() >= deadline:
            unread += 1
        else:
            read_count += _take(store, page_id, listing.paths[page_id], digest)
        if done % EVERY == 0:
            progress(done, len(pages))
    store.put_redirects(_redirect_rows(redirects))
    consolidate(store)
    return Update(
        listed=len(listing.paths), read=read_count, unchanged=unchanged, unread=unread, removed=len(set(known) - set(pages)),
        redirects=len(redirects), left_out=store.left_out(),
    )  # fmt: skip


def _originals(listing: Listing) -> tuple[dict[str, str], dict[str, str]]:
    """(page id to digest, page id to the page id that it stands for). An unreadable file has its reason for a digest."""
    pages: dict[str, str] = {}
    redirects = dict(listing.redirects)
    first: dict[str, str] = {}
    for page_id, path in listing.paths.items():
        try:
            raw = load(page_id, path)
        except ValueError as error:
            pages[page_id] = f"{RULES_VERSION}!{error}"
            continue
        target = redirect_target(raw)
        if target and target in listing.paths and target != page_id:
            redirects[page_id] = target
            continue
        original = first.setdefault(raw.digest, page_id)
        if original == page_id or _says_more(page_id):
            pages[page_id] = f"{RULES_VERSION}{raw.digest}"
        else:
            redirects[page_id] = original
    return pages, redirects


def _says_more(page_id: str) -> bool:
    """Files of a Debian package name it by their folder only: equal ones are still about different packages."""
    return Path(page_id).name == "copyright"


def _take(store: GraphStore, page_id: str, path: Path, digest: str) -> bool:
    """Read one page into the store; whether it was taken. One that is left out is stored with the reason."""
    try:
        page = read(load(page_id, path))
    except ValueError as error:
        store.put_left_out(page_id, digest, str(error).partition(":")[0])
        return False
    store.put(page, digest, extract(page))
    return True


def _redirect_rows(redirects: dict[str, str]) -> list[tuple[str, str, str]]:
    rows = []
    for page_id, target in redirects.items():
        rows.append((page_id, Name("page", page_id).node, Name("page", target).node))
        here, there = _manual_name(page_id), _manual_name(target)
        if here and there and here != there:
            rows.append((page_id, Name("manual page", here).node, Name("manual page", there).node))
    return rows


def _manual_name(page_id: str) -> str:
    """ "open(2)" of "man2/open.2"; empty for other pages."""
    name, _, section = Path(page_id).name.rpartition(".")
    return f"{name}({section})" if name and section[:1].isdigit() and "/man" in f"/{page_id}" else ""
