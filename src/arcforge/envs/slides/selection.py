"""Which slides and attempts are trained on (GLM-5 report, section 4.2.5): dynamic sampling for RL, rejection of pages and
of trajectories and Best-of-N for rejection-sampling fine-tuning, masks for pages that are defective in a good trajectory."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from itertools import combinations, takewhile
from typing import TypeVar

from arcforge.core.messages import Message
from arcforge.envs.slides.grading import DeckScore, SlideScore, shared_words
from arcforge.envs.slides.markup import Markup
from arcforge.envs.slides.writing import OK

T = TypeVar("T")
TRIVIAL_ELEMENTS, TRIVIAL_CHARACTERS = 8, 60
PAGE_QUALITY, PAGE_CONTENT = 0.8, 0.75
MOST_SHARED_WORDS = 0.6
GRAPHICS = frozenset({"img", "svg", "table", "image"})


def is_trivial(markup: Markup) -> bool:
    """A structurally trivial page: few elements, little text, nothing but text."""
    tags = [node.tag for node in markup.body.walk()]
    characters = sum(len(node.text) for node in markup.texts())
    return not GRAPHICS & set(tags) and (len(tags) < TRIVIAL_ELEMENTS or characters < TRIVIAL_CHARACTERS)


def drop_trivial(pages: Sequence[Markup], keep: float, rng: random.Random) -> list[int]:
    """Dynamic sampling: positions of the pages to learn from; a trivial one stays with probability `keep`."""
    return [place for place, page in enumerate(pages) if not is_trivial(page) or rng.random() < keep]


def spread(samples: Sequence[T], batches: int) -> list[list[T]]:
    """Deal the rollouts of one sample out over several batches, so that no batch is ruled by one of them."""
    return [list(samples[start::batches]) for start in range(batches)]


def accept_page(slide: SlideScore) -> bool:
    """Page-level rejection: valid, well made, complete, and not seen before in its deck."""
    valid = slide.page["parsable"].score > 0 and not slide.duplicate
    return valid and slide.page.quality >= PAGE_QUALITY and slide.content.share >= PAGE_CONTENT


def tools_correct(messages: Sequence[Message], slides: int) -> bool:
    """Every call was answered with ok, every slide was written, and the last call submitted."""
    calls = [call for message in messages for call in message.tool_calls]
    answers = [message.content for message in messages if message.role == "tool"]
    written = {number for numbers in _written(messages) for number in numbers}
    complete = written == set(range(1, slides + 1)) and bool(calls) and calls[-1].name == "submit"
    return complete and len(answers) == len(calls) and all(answer == OK for answer in answers)


def diverse(texts: Sequence[str]) -> bool:
    """No two slides share more than MOST_SHARED_WORDS of their words."""
    return all(shared_words(one, other) <= MOST_SHARED_WORDS for one, other in combinations(texts, 2))


def accept_trajectory(messages: Sequence[Message], texts: Sequence[str]) -> bool:
    """Trajectory-level rejection: tool correctness and diversity of content. texts: what the slides say, in order."""
    return tools_correct(messages, len(texts)) and diverse(texts)


def best_of(rewards: Sequence[float | None]) -> int | None:
    """Best-of-N: the position of the highest reward, the first of equals; attempts that failed (None) do not count."""
    judged = [(reward, -place) for place, reward in enumerate(rewards) if reward is not None]
    return -max(judged)[1] if judged else None


def defective(score: DeckScore) -> frozenset[int]:
    """Numbers (from 1) of the slides that page-level rejection refuses."""
    return frozenset(number for number, slide in enumerate(score.slides, 1) if not accept_page(slide))


def mask_pages(messages: Sequence[Message], numbers: Collection[int]) -> tuple[Message, ...]:
    """The trajectory with the turns untrained that write one of these slides, or write a version replaced later.

    The rest of a good trajectory stays trained, and what was masked stays in the context.
    """
    written = _written(messages)
    last = {number: place for place, found in enumerate(written) for number in found}
    bad = [any(n in numbers or last[n] != place for n in found) for place, found in enumerate(written)]
    return tuple(
        m.model_copy(update={"trained": False}) if wrong else m for m, wrong in zip(messages, bad, strict=True)
    )


def _written(messages: Sequence[Message]) -> list[list[int]]:
    """For each message, the slides that it wrote: those whose calls the deck answered with ok, in the order of the calls."""
    written = []
    for place, message in enumerate(messages):
        answers = takewhile(lambda later: later.role == "tool", messages[place + 1 :])
        done = [call for call, answer in zip(message.tool_calls, answers, strict=False) if answer.content == OK]
        given = [call.arguments.get("number") for call in done if call.name == "write_slide"]
        written.append([number for number in given if type(number) is int])
    return written
