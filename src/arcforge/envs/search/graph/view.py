"""The graph in memory, to walk on: entities, and their relations in both directions."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from arcforge.envs.search.graph.store import GraphStore

Sides = dict[str, dict[str, tuple[str, ...]]]


@dataclass(frozen=True, slots=True)
class Edge:
    """page, start, end: where the evidence stands."""

    subject: str
    relation: str
    object: str
    page: str
    start: int
    end: int

    @property
    def key(self) -> tuple[str, str, str]:
        return self.subject, self.relation, self.object


class Graph:
    """Loaded whole. Entities are told by the node that stands for them, "kind:key"."""

    def __init__(self, store: GraphStore) -> None:
        self.titles: dict[str, str] = {page: title for page, title, _ in store.pages()}
        self.pages_of: dict[str, str] = dict(store.db.execute("select subject, page from pages order by page desc"))
        self._read_names(store)
        self.edges: dict[tuple[str, str, str], Edge] = {}
        out: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        into: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        rows = store.db.execute(
            "select subject, relation, object, page, start, end from edges order by subject, relation, object"
        )
        for row in rows:
            edge = Edge(*row)
            if all(self._exists(entity) for entity in (edge.subject, edge.object)):
                self.edges[edge.key] = edge
                out[edge.subject][edge.relation].append(edge.object)
                into[edge.object][edge.relation].append(edge.subject)
        self.out, self.into = _frozen(out), _frozen(into)
        self.degrees: Counter[str] = Counter()
        for edge in self.edges.values():
            self.degrees.update((edge.subject, edge.object))
        self.entities = sorted(self.degrees)

    def _read_names(self, store: GraphStore) -> None:
        self._text: dict[str, str] = {}
        self._names: dict[str, list[str]] = defaultdict(list)
        for node, entity, text in store.db.execute("select node, entity, text from nodes order by node"):
            shown = self.titles.get(text, "") if node.startswith("page:") else text
            if node == entity:
                self._text[entity] = shown
            if shown and not node.startswith("email:"):
                self._names[entity].append(shown)

    def _exists(self, entity: str) -> bool:
        """A page that is linked to but is not in the folder is no entity. So is a manual page that only others name."""
        kind, _, key = entity.partition(":")
        if kind == "page":
            return key in self.titles
        return kind != "manual page" or entity in self.pages_of

    def kind(self, entity: str) -> str:
        return entity.partition(":")[0]

    def text(self, entity: str) -> str:
        """How the entity is written, in the pages' own way."""
        return self._text.get(entity) or entity.partition(":")[2]

    def names(self, entity: str) -> list[str]:
        """All names that mean it, its own first."""
        own = self.text(entity)
        return [own, *sorted(set(self._names.get(entity, ())) - {own})]

    def follow(self, entity: str, relation: str, forward: bool) -> tuple[str, ...]:
        """Objects (forward) or subjects (not) of a relation of this entity."""
        return (self.out if forward else self.into).get(entity, {}).get(relation, ())

    def steps(self, entity: str) -> Iterator[tuple[str, bool, str]]:
        """(relation, forward, other entity) of everything the entity takes part in."""
        for forward, sides in ((True, self.out), (False, self.into)):
            for relation, others in sides.get(entity, {}).items():
                for other in others:
                    yield relation, forward, other

    def edge(self, entity: str, relation: str, forward: bool, other: str) -> Edge:
        return self.edges[(entity, relation, other) if forward else (other, relation, entity)]


def _frozen(sides: dict[str, dict[str, list[str]]]) -> Sides:
    return {entity: {name: tuple(others) for name, others in by.items()} for entity, by in sides.items()}
