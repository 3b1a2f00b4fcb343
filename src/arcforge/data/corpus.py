"""The corpus of a run: source -> filter -> near-duplicates -> split into training and held-out documents."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from arcforge.core.config import Config
from arcforge.core.tasks import Conversation
from arcforge.core.words import NAMES
from arcforge.data.dedup import deduplicated
from arcforge.data.filters import filtered
from arcforge.data.sources import Document, split, standard_library

WORD_REPEATS = 2000


class DataConfig(Config):
    """source: a folder of .py files; empty means the Python standard library of this machine."""

    source: str = ""
    held_out: float = 0.05
    megabytes: float = 0.0
    """Use only about so much of the source (0 = all), for quick runs."""


@dataclass(frozen=True)
class Corpus:
    train: list[Document]
    held_out: list[Document]


def load_corpus(config: DataConfig) -> Corpus:
    """Raises UserError when no source code is found. The same machine gives the same corpus."""
    documents, _dropped = filtered(standard_library(config.source))
    train, held_out = split(deduplicated(documents), config.held_out)
    if config.megabytes:
        train, held_out = _first(train, config.megabytes), _first(held_out, config.megabytes * config.held_out)
    return Corpus(train, held_out)


def tokenizer_texts(corpus: Corpus, conversations: Iterable[Conversation]) -> list[str]:
    """What the tokenizer learns from: code, conversations, and the worlds' words often enough to be one token each."""
    texts = [document.text for document in corpus.train]
    return texts + [conversation_text(c) for c in conversations] + [" ".join(NAMES)] * WORD_REPEATS


def conversation_text(conversation: Conversation) -> str:
    """The plain text of a conversation, without control tokens."""
    lines = [tool.model_dump_json() for tool in conversation.tools]
    for message in conversation.messages:
        lines += [message.reasoning or "", message.content]
        lines += [f"{call.name} {key} {value}" for call in message.tool_calls for key, value in call.arguments.items()]
    return "\n".join(line for line in lines if line)


def _first(documents: list[Document], megabytes: float) -> list[Document]:
    taken, size = [], 0.0
    for document in documents:
        if size >= megabytes * 1e6 and taken:
            break
        taken.append(document)
        size += len(document.text)
    return taken
