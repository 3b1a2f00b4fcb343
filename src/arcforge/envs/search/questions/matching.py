"""All answers that the graph gives to a pattern."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from arcforge.envs.search.graph.view import Graph
from arcforge.envs.search.questions.question import Clue, Pattern

MOST_CHAINS = 50


def matches(graph: Graph, pattern: Pattern) -> list[tuple[str, ...]]:
    """Chains of different entities that fit the pattern, at most MOST_CHAINS. A first node without a clue fits nothing."""
    allowed = [candidates(graph, pattern, at) for at in range(len(pattern.kinds))]
    if allowed[0] is None:
        return []
    found = (chain for first in sorted(allowed[0]) for chain in _extend(graph, pattern, allowed, (first,)))
    return list(islice(found, MOST_CHAINS))


def candidates(graph: Graph, pattern: Pattern, at: int) -> set[str] | None:
    """Entities of the node's kind that fit its clues; None when it has none."""
    clues = [clue for clue in pattern.clues if clue.at == at]
    if not clues:
        return None
    return set.intersection(*(fitting(graph, clue, pattern.kinds[at]) for clue in clues))


def fitting(graph: Graph, clue: Clue, kind: str) -> set[str]:
    """Entities of a kind that fit one clue."""
    return {e for e in graph.follow(clue.value, clue.relation, not clue.forward) if graph.kind(e) == kind}


def _extend(
    graph: Graph, pattern: Pattern, allowed: list[set[str] | None], chain: tuple[str, ...]
) -> Iterator[tuple[str, ...]]:
    at = len(chain)
    if at == len(pattern.kinds):
        yield chain
        return
    hop, wanted = pattern.hops[at - 1], allowed[at]
    for entity in graph.follow(chain[-1], hop.relation, hop.forward):
        if entity in chain or graph.kind(entity) != pattern.kinds[at] or (wanted is not None and entity not in wanted):
            continue
        yield from _extend(graph, pattern, allowed, (*chain, entity))
