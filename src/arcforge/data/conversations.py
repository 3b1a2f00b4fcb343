"""Conversations to ids and loss mask, through the one template that serving and RL use too.

GLM-5 report, section 3.1: erroneous segments stay in the context and out of the loss (`Message.trained`), and by
default (interleaved thinking) reasoning before the last user message is not in the context. A conversation with several
user turns is therefore several samples: each assistant message is trained once, in the context it is sampled in.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from arcforge.chat.template import render
from arcforge.chat.tokenizer import Tokenizer
from arcforge.core.messages import Message
from arcforge.core.tasks import Conversation
from arcforge.data.packing import PackedRows, Tokens
from arcforge.data.sharing import pack_shared


def tokens_of(conversation: Conversation, tokenizer: Tokenizer) -> Tokens:
    """The conversation rendered once, with the template's loss mask."""
    rendered = render(conversation.messages, conversation.tools, conversation.thinking, tokenizer)
    return Tokens.of(rendered.ids, rendered.trained)


def samples_of(conversation: Conversation, tokenizer: Tokenizer) -> list[Tokens]:
    """The conversation as training samples; one unless reasoning is dropped at a later user message."""
    return [tokens for part in _as_sampled(conversation) if (tokens := tokens_of(part, tokenizer)).mask.any()]


def pack_conversations(
    conversations: Iterable[Conversation], tokenizer: Tokenizer, length: int
) -> tuple[PackedRows, int]:
    """(rows in the given order behind the prefix they share, number of samples left out as longer than a row).

    A cut conversation would be trained on answers whose question it does not see, so it is left out whole.
    """
    samples = [sample for conversation in conversations for sample in samples_of(conversation, tokenizer)]
    fitting = [sample for sample in samples if len(sample) <= length]
    rows, _ = pack_shared(fitting, length, tokenizer.pad_id, order=range(len(fitting)))
    return rows, len(samples) - len(fitting)


def beyond_topk_share(rows: PackedRows, topk: int) -> float:
    """Share of targets predicted from more than `topk` candidate positions, where sparse attention must choose.

    Target t is predicted at t - 1, which may attend to the tokens of its document before t.
    """
    candidates = rows.positions[rows.loss_mask]
    return float(np.mean(candidates > topk)) if len(candidates) else 0.0


def _as_sampled(conversation: Conversation) -> list[Conversation]:
    """One conversation per user turn, each with only its own turn trained; the whole when no reasoning is dropped."""
    messages = conversation.messages
    users = [i for i, message in enumerate(messages) if message.role == "user"]
    history = messages[: max(users, default=0)]
    if conversation.thinking.preserved or not any(message.reasoning is not None for message in history):
        return [conversation]
    return [
        conversation.model_copy(update={"messages": _untrained(messages[:start]) + messages[start:end]})
        for start, end in zip(users, [*users[1:], len(messages)])
    ]


def _untrained(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    return tuple(message.model_copy(update={"trained": False}) for message in messages)
