"""Drafts of tasks, in words: what a model thinks of for a seed, read strictly, without near-duplicates.

GLM-5 report, section 4.2.2: a model brainstorms task drafts from seeds before anything is built.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

from pydantic import Field, ValidationError

from arcforge.core.messages import Message, Value
from arcforge.envs.asking import Asker, unfenced
from arcforge.envs.terminal.synthesis.prompts import drafts_prompt
from arcforge.envs.terminal.synthesis.seeds import Seed
from arcforge.rewards.reply import folded_words

ALIKE = 0.6
"""Two drafts are one when they share more than this part of the words of both."""
_SMALL = frozenset(
    "a an and as at be by for from in into is it its of on or that the their them then this to with".split()
)


class Idea(Value):
    """A task that is not built yet. difficulty: 1 to 3."""

    title: str = Field(min_length=3, max_length=120)
    goal: str = Field(min_length=20, max_length=2000)
    difficulty: int = Field(ge=1, le=3, strict=True)
    skills: tuple[str, ...] = Field(min_length=1, max_length=8)


class Candidate(Value):
    """An idea and the seed that it came from."""

    seed: Seed
    idea: Idea

    @property
    def name(self) -> str:
        """The same for the same seed and idea: title and hash, as a folder's name."""
        digest = hashlib.sha256(f"{self.seed.digest}\0{self.idea.model_dump_json()}".encode()).hexdigest()
        slug = re.sub(r"[^a-z0-9]+", "-", self.idea.title.casefold())[:40].strip("-")
        return f"{slug or 'task'}-{digest[:8]}"


async def think(asker: Asker, seed: Seed, count: int) -> list[Idea]:
    """`count` ideas of a model. EngineError when no answer can be had or read, GatewayError, RolloutTimeout."""
    messages = [Message(role="user", content=drafts_prompt(seed, count))]
    return await asker.read(messages, f"drafts/{seed.digest[:16]}", lambda text: read_ideas(text, count))


def read_ideas(text: str, count: int) -> list[Idea]:
    """The first `count` of {"drafts": [{"title", "goal", "difficulty", "skills"}]}. ValueError for anything else."""
    try:
        data: Any = json.loads(unfenced(text))
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None
    if (
        not isinstance(data, dict)
        or set(data) != {"drafts"}
        or not isinstance(data["drafts"], list)
        or not data["drafts"]
    ):
        raise ValueError('one object {"drafts": [...]} is wanted')
    try:
        return [Idea.model_validate(row) for row in data["drafts"][:count]]
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"drafts: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def distinct(candidates: Sequence[Candidate], alike: float = ALIKE) -> tuple[list[Candidate], list[Candidate]]:
    """(kept, those like an earlier kept one), in order. Drafts are a few sentences: their words are compared as sets, each with
    each, and nothing has to be estimated."""
    kept: list[tuple[Candidate, frozenset[str]]] = []
    dropped: list[Candidate] = []
    for candidate in candidates:
        words = frozenset(folded_words(f"{candidate.idea.title} {candidate.idea.goal}")) - _SMALL
        if any(len(words & other) > alike * len(words | other) for _, other in kept):
            dropped.append(candidate)
        else:
            kept.append((candidate, words))
    return [candidate for candidate, _ in kept], dropped
