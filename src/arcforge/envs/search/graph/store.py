"""The graph on disk (SQLite): pages, what was read off each, and what follows from all of them together.

`pages`, `facts` and `aliases` belong to one page each and come and go with it. `nodes` (which entity a name means) and
`edges` (relations between entities) follow from them; `align.py` keeps them up to date for the names in `dirty`, which is
written in the same transaction as the page: a run that was killed goes on where it ended.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from arcforge.core.errors import UserError
from arcforge.envs.search.extract.facts import Extraction
from arcforge.envs.search.pages.page import Page

SCHEMA = """
create table if not exists meta(key text primary key, value text);
create table if not exists pages(page text primary key, digest text, title text, text text, subject text);
create table if not exists left_out(page text primary key, digest text, reason text);
create table if not exists facts(page text, subject text, subject_text text, relation text, object text,
    object_text text, start integer, end integer);
create table if not exists aliases(page text, node text, other text, reason text);
create table if not exists nodes(node text primary key, entity text, text text);
create table if not exists edges(subject text, relation text, object text, page text, start integer, end integer,
    primary key(subject, relation, object)) without rowid;
create table if not exists dirty(node text primary key);
create table if not exists read_by_completer(page text primary key);
create index if not exists facts_page on facts(page);
create index if not exists facts_subject on facts(subject);
create index if not exists facts_object on facts(object);
create index if not exists aliases_page on aliases(page);
create index if not exists aliases_node on aliases(node);
create index if not exists aliases_other on aliases(other);
create index if not exists nodes_entity on nodes(entity);
create index if not exists edges_object on edges(object);
create index if not exists pages_subject on pages(subject);
"""
VERSION = "2"
REDIRECT = "redirect"


class GraphStore:
    """path: the database file, or ":memory:". UserError for a file that is no graph of this version."""

    def __init__(self, path: Path | str = ":memory:") -> None:
        try:
            self.db = sqlite3.connect(path)
            self.db.executescript(SCHEMA)
            self.db.execute("pragma journal_mode=wal")
            self.db.execute("pragma synchronous=normal")
            stored = self.meta("version")
            if not stored:
                self.set_meta("version", VERSION)
                self.db.commit()
        except sqlite3.Error as error:
            raise UserError(f"{path}: no graph can be kept here: {error}; name another file") from None
        if stored not in ("", VERSION):
            self.db.close()
            raise UserError(f"{path}: a graph of version {stored}, this is version {VERSION}; build it anew elsewhere")

    def meta(self, key: str) -> str:
        row = self.db.execute("select value from meta where key = ?", (key,)).fetchone()
        return row[0] if row else ""

    def set_meta(self, key: str, value: str) -> None:
        self.db.execute("insert or replace into meta values(?, ?)", (key, value))

    def digests(self) -> dict[str, str]:
        """Page id to digest, of pages that are here and of those left out."""
        return dict(self.db.execute("select page, digest from pages union all select page, digest from left_out"))

    def left_out(self) -> dict[str, int]:
        """Reason to number of pages left out for it."""
        return dict(self.db.execute("select reason, count(*) from left_out group by reason order by reason"))

    def put(self, page: Page, digest: str, found: Extraction) -> None:
        """Add a page or replace it, with what the rules found, as one transaction."""
        with self.db:
            self._forget(page.page_id)
            row = (page.page_id, digest, page.title, page.text, found.subject.node)
            self.db.execute("insert into pages values(?,?,?,?,?)", row)
            self.db.execute("insert or ignore into dirty values(?)", (found.subject.node,))
            self._add(page.page_id, found)

    def put_left_out(self, page_id: str, digest: str, reason: str) -> None:
        with self.db:
            self._forget(page_id)
            self.db.execute("insert into left_out values(?,?,?)", (page_id, digest, reason))

    def put_redirects(self, rows: Iterable[tuple[str, str, str]]) -> None:
        """(page id, node of the name it stands for there, node it means): these replace all redirects that were here."""
        wanted = set(rows)
        with self.db:
            there = set(self.db.execute("select page, node, other from aliases where reason = ?", (REDIRECT,)))
            for page, node, other in sorted(there - wanted):
                self.db.execute(
                    "delete from aliases where page = ? and node = ? and other = ? and reason = ?",
                    (page, node, other, REDIRECT),
                )
                self._mark(node, other)
            for page, node, other in sorted(wanted - there):
                self.db.execute("insert into aliases values(?,?,?,?)", (page, node, other, REDIRECT))
                self._mark(node, other)

    def put_completer(self, page_id: str, found: Extraction) -> None:
        """Add what a completer found on a page that is here, and remember that it was asked."""
        with self.db:
            self._add(page_id, found)
            self.db.execute("insert or replace into read_by_completer values(?)", (page_id,))

    def remove(self, page_id: str) -> None:
        with self.db:
            self._forget(page_id)

    def pages(self) -> Iterator[tuple[str, str, str]]:
        """(page id, title, text), in order of the ids."""
        yield from self.db.execute("select page, title, text from pages order by page")

    def text(self, page_id: str) -> str:
        """The text of one page; empty when it is not here."""
        row = self.db.execute("select text from pages where page = ?", (page_id,)).fetchone()
        return row[0] if row else ""

    def count(self, table: str) -> int:
        return self.db.execute(f"select count(*) from {table}").fetchone()[0]

    def dump(self) -> dict[str, list[tuple]]:
        """Every row in order, to compare two graphs by."""
        tables = ("pages", "left_out", "facts", "aliases", "nodes", "edges", "read_by_completer")
        return {table: sorted(self.db.execute(f"select * from {table}")) for table in tables}

    def close(self) -> None:
        self.db.close()

    def _forget(self, page_id: str) -> None:
        mark = "insert or ignore into dirty select {} from {} where page = ?"
        for column, table in (("subject", "facts"), ("object", "facts"), ("subject", "pages")):
            self.db.execute(mark.format(column, table), (page_id,))
        for column in ("node", "other"):
            self.db.execute(f"{mark.format(column, 'aliases')} and reason != '{REDIRECT}'", (page_id,))
        for table in ("pages", "facts", "left_out", "read_by_completer"):
            self.db.execute(f"delete from {table} where page = ?", (page_id,))
        self.db.execute("delete from aliases where page = ? and reason != ?", (page_id, REDIRECT))

    def _add(self, page_id: str, found: Extraction) -> None:
        rows = [
            (page_id, f.subject.node, f.subject.text, f.relation, f.object.node, f.object.text, f.start, f.end)
            for f in found.facts
        ]
        self.db.executemany("insert into facts values(?,?,?,?,?,?,?,?)", rows)
        self._mark(*(node for row in rows for node in (row[1], row[4])))
        for alias in found.aliases:
            self.db.execute(
                "insert into aliases values(?,?,?,?)", (page_id, alias.name.node, alias.other.node, alias.reason)
            )
            self._mark(alias.name.node, alias.other.node)

    def _mark(self, *nodes: str) -> None:
        self.db.executemany("insert or ignore into dirty values(?)", ((node,) for node in set(nodes)))
