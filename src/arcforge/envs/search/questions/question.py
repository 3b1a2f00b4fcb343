"""A question with everything that made it: the chain through the graph, its clues, its evidence."""

from __future__ import annotations

from arcforge.core.messages import Value


class Hop(Value):
    """One step of a chain, from node i to node i + 1. forward: node i is the subject."""

    relation: str
    forward: bool


class Clue(Value):
    """Something told of node `at`: its relation to a thing that the question names. forward: the node is the subject."""

    at: int
    relation: str
    forward: bool
    value: str
    text: str


class Pattern(Value):
    """What a question asks of the graph. kinds: of the chain's nodes; the last one is asked for."""

    kinds: tuple[str, ...]
    hops: tuple[Hop, ...]
    clues: tuple[Clue, ...]


class Evidence(Value):
    """A relation with the sentence that says so. at: the node that a clue is about; for hop i from node i, also i.

    page, start, end: where `text` stands.
    """

    at: int
    is_clue: bool
    subject: str
    relation: str
    object: str
    page: str
    start: int
    end: int
    text: str


class Question(Value):
    """chain: the entities from the first to the answer, by their nodes in the graph. aliases: other right answers."""

    question_id: str
    text: str
    answer: str
    aliases: tuple[str, ...]
    kind: str
    chain: tuple[str, ...]
    pattern: Pattern
    evidence: tuple[Evidence, ...]

    @property
    def hops(self) -> int:
        return len(self.pattern.hops)

    @property
    def pages(self) -> tuple[str, ...]:
        """Pages of the evidence, in the order of the chain, each once."""
        return tuple(dict.fromkeys(item.page for item in self.evidence))

    @property
    def chain_edges(self) -> frozenset[tuple[str, str, str]]:
        """Edges that the chain walks, as (subject, relation, object)."""
        return frozenset(
            (a, hop.relation, b) if hop.forward else (b, hop.relation, a)
            for a, hop, b in zip(self.chain, self.pattern.hops, self.chain[1:])
        )
