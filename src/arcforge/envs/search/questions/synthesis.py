"""Questions by subgraph expansion: from a rare entity, the answer, backwards along relations to a place that clues can name.

GLM-5 report, section 4.2.3: seeds are entities of low and middle frequency, the subgraphs of different questions do not
overlap, and the question tells the chain without naming it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from arcforge.core.messages import Value
from arcforge.envs.search.extract.relations import KINDS
from arcforge.envs.search.graph.store import GraphStore
from arcforge.envs.search.graph.view import Graph
from arcforge.envs.search.questions.matching import fitting, matches
from arcforge.envs.search.questions.question import Clue, Evidence, Hop, Pattern, Question
from arcforge.envs.search.questions.wording import word

CLUES_ONLY = frozenset(("is_a", "dated", "release_of", "documents"))
"""Relations that say too little of their object to be a step of a chain."""


class Plan(Value):
    """hops: fewest and most. seed_degrees: fewest and most relations of an answer. hub: most relations of a node on the way.

    first_clues, clues: most clues of the first node and of each later one. tries: walks per seed.
    """

    hops: tuple[int, int] = (2, 4)
    seed_degrees: tuple[int, int] = (2, 25)
    hub: int = 80
    first_clues: int = 3
    clues: int = 2
    tries: int = 6


@dataclass
class Overlap:
    """What earlier questions used: an answer is asked for once, and an edge is walked by one chain only."""

    answers: set[str] = field(default_factory=set)
    edges: set[tuple[str, str, str]] = field(default_factory=set)

    def take(self, question: Question) -> None:
        self.answers.add(question.chain[-1])
        self.edges |= question.chain_edges


class Synthesis:
    """Draws questions from a graph. `reasons` counts the walks that came to nothing."""

    def __init__(self, graph: Graph, store: GraphStore, rng: random.Random, plan: Plan | None = None) -> None:
        self.graph, self._store, self._rng = graph, store, rng
        self.plan = plan or Plan()
        self.overlap = Overlap()
        self.reasons: Counter[str] = Counter()
        self._seeds = self._draw_seeds()

    @property
    def seeds(self) -> int:
        """How many entities can be an answer."""
        return len(self._seeds)

    def __iter__(self) -> Iterator[Question]:
        """One question at most for each seed. A question that is given out has taken its answer and its edges."""
        for seed in self._seeds:
            for _ in range(self.plan.tries):
                question = self._attempt(seed)
                if question is not None:
                    self.overlap.take(question)
                    yield question
                    break

    def _draw_seeds(self) -> list[str]:
        """Kinds in turn, so that the most frequent kind does not become the whole set."""
        least, most = self.plan.seed_degrees
        by_kind: dict[str, list[str]] = {}
        for entity in self.graph.entities:
            if self.graph.kind(entity) in KINDS and least <= self.graph.degrees[entity] <= most:
                by_kind.setdefault(self.graph.kind(entity), []).append(entity)
        for entities in by_kind.values():
            self._rng.shuffle(entities)
        longest = max(map(len, by_kind.values()), default=0)
        return [by_kind[kind][at] for at in range(longest) for kind in sorted(by_kind) if at < len(by_kind[kind])]

    def _attempt(self, seed: str) -> Question | None:
        chain, hops = self._walk(seed, self._rng.randint(*self.plan.hops))
        if len(hops) < self.plan.hops[0]:
            return self._fail("no way on from here")
        pattern = self._with_clues(chain, hops)
        if pattern is None:
            return None
        return self._question(chain, pattern)

    def _fail(self, reason: str) -> None:
        self.reasons[reason] += 1

    def _walk(self, seed: str, length: int) -> tuple[list[str], list[Hop]]:
        """Backwards from the answer; returned in the order in which it is told."""
        chain, hops = [seed], []
        while len(hops) < length:
            steps = [step for step in self.graph.steps(chain[0]) if self._may_step(chain, *step)]
            if not steps:
                break
            relations = sorted({(relation, forward) for relation, forward, _ in steps})
            relation, forward = self._rng.choice(relations)
            before = self._rng.choice([other for r, f, other in steps if (r, f) == (relation, forward)])
            chain.insert(0, before)
            hops.insert(0, Hop(relation=relation, forward=not forward))
        return chain, hops

    def _may_step(self, chain: list[str], relation: str, forward: bool, other: str) -> bool:
        if relation in CLUES_ONLY or other in chain or self.graph.kind(other) not in KINDS:
            return False
        if self.graph.degrees[other] > self.plan.hub or other in self.overlap.answers:
            return False
        return self.graph.edge(chain[0], relation, forward, other).key not in self.overlap.edges

    def _with_clues(self, chain: list[str], hops: list[Hop]) -> Pattern | None:
        """Clues for the first node until they name it, or there are enough; then for later nodes until one chain is left."""
        kinds = tuple(self.graph.kind(entity) for entity in chain)
        clues = self._first_clues(chain)
        if not clues:
            return self._fail("nothing tells the first entity")
        pattern = Pattern(kinds=kinds, hops=tuple(hops), clues=tuple(clues))
        found = matches(self.graph, pattern)
        for at in range(1, len(chain)):
            while len({c[at] for c in found}) > 1 and sum(c.at == at for c in pattern.clues) < self.plan.clues:
                clue = self._telling(chain, at, {c[at] for c in found}, {c.value for c in pattern.clues})
                if clue is None:
                    break
                pattern = pattern.model_copy(update={"clues": (*pattern.clues, clue)})
                found = matches(self.graph, pattern)
        return pattern if found == [tuple(chain)] else self._fail("not unique in the graph")

    def _first_clues(self, chain: list[str]) -> list[Clue]:
        """At least two that leave the first entity alone together; none of them does so by itself."""
        left: set[str] | None = None
        chosen: list[Clue] = []
        for clue in self._possible(chain, 0):
            fits = fitting(self.graph, clue, self.graph.kind(chain[0]))
            if len(fits) < 2 or (left is not None and not left - fits):
                continue
            chosen.append(clue)
            left = fits if left is None else left & fits
            if len(left) == 1 or len(chosen) == self.plan.first_clues:
                break
        return chosen if len(chosen) > 1 else []

    def _telling(self, chain: list[str], at: int, rivals: set[str], used: set[str]) -> Clue | None:
        """The first of a few possible clues that most rivals do not fit; None when none tells them apart."""
        best, left = None, len(rivals)
        for clue in self._possible(chain, at)[:12]:
            remaining = len(rivals & fitting(self.graph, clue, self.graph.kind(chain[at])))
            if clue.value not in used and remaining < left:
                best, left = clue, remaining
        return best

    def _possible(self, chain: list[str], at: int) -> list[Clue]:
        """In random order, kinds of relations in turn, so that frequent relations do not crowd out the others."""
        by_relation: dict[str, list[Clue]] = {}
        for relation, forward, other in self.graph.steps(chain[at]):
            if other not in chain and self.graph.text(other):
                text = self.graph.text(other)
                clue = Clue(at=at, relation=relation, forward=forward, value=other, text=text)
                by_relation.setdefault(f"{relation}{forward}", []).append(clue)
        groups = list(by_relation.values())
        self._rng.shuffle(groups)
        for group in groups:
            self._rng.shuffle(group)
        longest = max(map(len, groups), default=0)
        return [group[place] for place in range(longest) for group in groups if place < len(group)]

    def _question(self, chain: list[str], pattern: Pattern) -> Question | None:
        answer = self.graph.text(chain[-1])
        text = word(pattern)
        named = [self.graph.text(entity) for entity in chain]
        if (
            any(name.casefold() in text.casefold() for name in named if len(name) > 3)
            or answer.casefold() in text.casefold()
        ):
            return self._fail("the text names the chain")
        evidence = self._evidence(chain, pattern)
        if len({item.page for item in evidence if not item.is_clue}) < 2:
            return self._fail("all on one page")
        return Question(
            question_id=f"{chain[-1]}/{len(pattern.hops)}", text=text, answer=answer, aliases=self._aliases(chain[-1]),
            kind=pattern.kinds[-1], chain=tuple(chain), pattern=pattern, evidence=tuple(evidence),
        )  # fmt: skip

    def _aliases(self, entity: str) -> tuple[str, ...]:
        return tuple(self.graph.names(entity)[1:])

    def _evidence(self, chain: list[str], pattern: Pattern) -> list[Evidence]:
        found = []
        for at, entity in enumerate(chain):
            for clue in pattern.clues:
                if clue.at == at:
                    found.append(self._item(at, True, entity, clue.relation, clue.forward, clue.value))
            if at < len(pattern.hops):
                hop = pattern.hops[at]
                found.append(self._item(at, False, entity, hop.relation, hop.forward, chain[at + 1]))
        return found

    def _item(self, at: int, is_clue: bool, entity: str, relation: str, forward: bool, other: str) -> Evidence:
        edge = self.graph.edge(entity, relation, forward, other)
        text = self._store.text(edge.page)[edge.start : edge.end]
        return Evidence(
            at=at, is_clue=is_clue, subject=edge.subject, relation=relation, object=edge.object, page=edge.page,
            start=edge.start, end=edge.end, text=text,
        )  # fmt: skip
