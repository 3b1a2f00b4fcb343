"""Entity alignment and relation consolidation, for the names that a change touched and all that hang together with them.

Names are one entity when aliases join them (a page documents both, a redirect, one person's address), unless
- the name has a page of its own and the alias only says that another page documents it too, or
- an address is shared by people who have no word of their names in common.
What comes out depends on the stored pages alone, not on the order in which they came.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable

from arcforge.envs.search.graph.store import GraphStore

Rows = Iterable[tuple]


def consolidate(store: GraphStore) -> None:
    """Bring `nodes` and `edges` up to date. One transaction."""
    db = store.db
    with db:
        dirty = {node for (node,) in db.execute("select node from dirty")}
        if not dirty:
            return
        db.execute("create temp table if not exists affected(node text primary key, entity text)")
        db.execute("create temp table if not exists stale(entity text primary key)")
        db.execute("delete from affected")
        db.execute("delete from stale")
        groups = _components(db, _with_their_entities(db, dirty))
        _write_nodes(db, groups)
        _write_edges(db)
        db.execute("delete from dirty")


def _with_their_entities(db: sqlite3.Connection, dirty: set[str]) -> set[str]:
    """The names, and those that were of one entity with them until now."""
    db.executemany("insert or ignore into affected(node) values(?)", ((node,) for node in dirty))
    members = db.execute(
        "select node from nodes where entity in (select n.entity from nodes n join affected a on a.node = n.node)"
    )
    return dirty | {node for (node,) in members}


def _components(db: sqlite3.Connection, start: set[str]) -> list[list[str]]:
    seen: set[str] = set()
    groups = []
    for first in sorted(start):
        if first in seen:
            continue
        group, frontier = [], [first]
        seen.add(first)
        while frontier:
            node = frontier.pop()
            group.append(node)
            for other in _joined(db, node):
                if other not in seen:
                    seen.add(other)
                    frontier.append(other)
        groups.append(sorted(group))
    return groups


def _joined(db: sqlite3.Connection, node: str) -> set[str]:
    """Names that an alias makes the same entity as this one."""
    found = set()
    rows = db.execute(
        "select node, other, reason from aliases where node = ? union select node, other, reason from aliases where other = ?",
        (node, node),
    ).fetchall()
    for name, other, reason in rows:
        if reason == "names" and _owned(db, other):
            continue
        if reason == "email" and not _one_person(db, other):
            continue
        found.add(other if name == node else name)
    return found


def _owned(db: sqlite3.Connection, node: str) -> bool:
    return db.execute("select 1 from pages where subject = ? limit 1", (node,)).fetchone() is not None


def _one_person(db: sqlite3.Connection, address: str) -> bool:
    rows = db.execute("select distinct node from aliases where other = ? and reason = 'email'", (address,))
    words = [set(node.partition(":")[2].split()) for (node,) in rows]
    return bool(set.intersection(*words)) if words else False


def _write_nodes(db: sqlite3.Connection, groups: list[list[str]]) -> None:
    """The entity is called by its first name: one with a page of its own, else the most mentioned, else the first in order."""
    names = [node for group in groups for node in group]
    db.execute("delete from affected")
    db.executemany("insert into affected(node) values(?)", ((node,) for node in names))
    db.execute("insert or ignore into stale select n.entity from nodes n join affected a on a.node = n.node")
    texts = _texts(db)
    owned = {node for (node,) in db.execute("select p.subject from pages p join affected a on a.node = p.subject")}
    joined = set()
    for column in ("node", "other"):
        joined |= {
            n for (n,) in db.execute(f"select distinct a.node from affected a join aliases x on x.{column} = a.node")
        }
    db.execute("delete from nodes where node in (select node from affected)")
    for group in groups:
        live = [node for node in group if node in texts or node in owned or node in joined]
        if not live:
            continue
        mentions = {node: sum(texts.get(node, {}).values()) for node in live}
        entity = min(live, key=lambda node: (node.startswith("email:"), node not in owned, -mentions[node], node))
        rows = [(node, entity, _shown(node, texts.get(node, {}))) for node in live]
        db.executemany("insert into nodes values(?,?,?)", rows)
        db.executemany("update affected set entity = ? where node = ?", ((entity, node) for node in live))
    db.execute("insert or ignore into stale select distinct entity from affected where entity is not null")


def _texts(db: sqlite3.Connection) -> dict[str, dict[str, int]]:
    """How the affected names are written, and how often."""
    texts: dict[str, dict[str, int]] = defaultdict(dict)
    for side in ("subject", "object"):
        rows = db.execute(
            f"select f.{side}, f.{side}_text, count(*) from facts f join affected a on a.node = f.{side} group by 1, 2"
        )
        for node, text, count in rows:
            texts[node][text] = texts[node].get(text, 0) + count
    return texts


def _shown(node: str, texts: dict[str, int]) -> str:
    return min(texts, key=lambda text: (-texts[text], text)) if texts else node.partition(":")[2]


def _write_edges(db: sqlite3.Connection) -> None:
    """Relations of the affected entities, each once, with the first place that says it as evidence."""
    db.execute("delete from edges where subject in (select entity from stale)")
    db.execute("delete from edges where object in (select entity from stale)")
    rows: Rows = db.execute(
        """
        with touched as (
            select f.rowid as id from facts f join affected a on a.node = f.subject
            union select f.rowid from facts f join affected a on a.node = f.object
        )
        select s.entity, f.relation, o.entity, f.page, f.start, f.end
        from touched t join facts f on f.rowid = t.id
        join nodes s on s.node = f.subject join nodes o on o.node = f.object
        where s.entity != o.entity
        order by 1, 2, 3, 4, 5, 6
        """
    )
    first: dict[tuple, tuple] = {}
    for row in rows:
        first.setdefault(row[:3], row)
    db.executemany("insert or replace into edges values(?,?,?,?,?,?)", first.values())
