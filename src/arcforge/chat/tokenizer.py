"""A byte-level BPE tokenizer with the control tokens of the GLM-5 chat template (GLM-5 report, section 3.1).

Text is split into runs of letters, single digits, runs of other marks, and white space before BPE sees it: a word carries
no leading space and so has the same ids wherever it stands, which lets a small model learn to copy it.

`encode` can never produce a control token: it runs the BPE without the added tokens. What a user or a tool writes stays
text, whatever it spells; only the template places control tokens, by id.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers

from arcforge.chat.frame import OUR_FRAME, OUR_TEMPLATE, TEMPLATE_FILE, ChatTemplate, load_template
from arcforge.core.errors import UserError
from arcforge.core.runs import atomic_write

CONTROL_TOKENS: tuple[str, ...] = (
    "<|endoftext|>",
    "[gMASK]",
    "<sop>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|observation|>",
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<arg_key>",
    "</arg_key>",
    "<arg_value>",
    "</arg_value>",
    "<tool_response>",
    "</tool_response>",
    "<tools>",
    "</tools>",
)
STOP_TOKENS = ("<|endoftext|>", "<|user|>", "<|observation|>")
_TOOLS_TAGS = ("<tools>", "</tools>")
# Decoding "without special tokens" drops these; tags of reasoning and tool calls stay readable for servers that parse text.
_SPECIAL = frozenset(CONTROL_TOKENS[:7])

_SPLIT = r"\p{L}+|\p{N}|[^\s\p{L}\p{N}]+|\s+"
_REMEMBERED_TEXTS, _REMEMBERED_CHARS = 4096, 4096
SMALLEST_VOCABULARY = 256 + len(CONTROL_TOKENS)


class Tokenizer:
    """Built from the text of a `tokenizer.json`. Immutable; can be pickled and shared between threads.

    `template` is the chat template that it is saved with; of it, rendering follows the frame of the tools.
    """

    def __init__(self, tokenizer_json: str, template: ChatTemplate = OUR_TEMPLATE) -> None:
        data = json.loads(tokenizer_json)
        self._json, self.template = tokenizer_json, template
        added: dict[str, int] = {token["content"]: token["id"] for token in data["added_tokens"]}
        missing = [name for name in CONTROL_TOKENS if name not in added]
        if template.frame != OUR_FRAME:  # there these two tags may be plain text
            missing = [name for name in missing if name not in _TOOLS_TAGS]
        if missing:
            raise UserError(f"tokenizer: no control token {missing[0]}; it was not made for this chat template")
        self._control = {name: added[name] for name in CONTROL_TOKENS if name in added}
        self._added = added
        self._split_at_added = re.compile(f"({'|'.join(map(re.escape, sorted(added, key=len, reverse=True)))})").split
        self._bpe = tokenizers.Tokenizer.from_str(json.dumps({**data, "added_tokens": []}))
        self._bytes = _bytes_per_id(data["model"]["vocab"], added)
        self._remembered = lru_cache(maxsize=_REMEMBERED_TEXTS)(self._encode)
        self.stop_ids: tuple[int, ...] = tuple(self._control[name] for name in STOP_TOKENS)
        self.pad_id: int = self._control["<|endoftext|>"]

    def __reduce__(self) -> tuple[Any, ...]:
        return (Tokenizer, (self._json, self.template))

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> Tokenizer:
        """Learn merges from `texts`. `vocab_size` counts control tokens and bytes. Deterministic in the texts.

        UserError when the vocabulary cannot hold all bytes and control tokens.
        """
        if vocab_size < SMALLEST_VOCABULARY:
            raise UserError(f"vocab_size {vocab_size}: at least {SMALLEST_VOCABULARY} are needed for bytes and control")
        bpe = tokenizers.Tokenizer(models.BPE())
        split = pre_tokenizers.Split(Regex(_SPLIT), "isolated")
        to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        bpe.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])  # pyright: ignore[reportAttributeAccessIssue]
        bpe.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
        control = [AddedToken(name, normalized=False) for name in CONTROL_TOKENS]
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=control,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        bpe.train_from_iterator(texts, trainer)
        data = json.loads(bpe.to_str())
        for token in data["added_tokens"]:  # the trainer marks them all special
            token["special"] = token["content"] in _SPECIAL
        return cls(json.dumps(data, ensure_ascii=False, indent=1))

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """From tokenizer.json and, where there is one, chat_template.jinja of `folder`.

        UserError when the tokenizer is absent, either is unreadable, or they are not made for templates of GLM-5's kind.
        """
        path, template = Path(folder) / "tokenizer.json", load_template(folder)
        try:
            return cls(path.read_text(encoding="utf-8"), template)
        except FileNotFoundError:
            raise UserError(f"{path}: no such file; a checkpoint folder holds its tokenizer") from None
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        except Exception as error:  # tokenizers raises bare Exception for a file it cannot read
            raise UserError(f"{path}: cannot be read as a tokenizer: {error}") from None

    def save(self, folder: Path) -> None:
        """Write tokenizer.json, tokenizer_config.json and chat_template.jinja, as Hugging Face tools read them.

        `apply_chat_template` there gives the ids of `chat.template.render` for every text that spells no control token.
        A template that was loaded with the tokenizer is written as it was.
        """
        folder = Path(folder)
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": "<|endoftext|>",
            "pad_token": "<|endoftext|>",
            "padding_side": "left",
            "clean_up_tokenization_spaces": False,
            "model_input_names": ["input_ids", "attention_mask"],
        }
        atomic_write(folder / "tokenizer.json", self._json)
        atomic_write(folder / "tokenizer_config.json", json.dumps(settings, indent=2) + "\n")
        atomic_write(folder / TEMPLATE_FILE, self.template.text)

    @property
    def control(self) -> Mapping[str, int]:
        """Control token -> id."""
        return MappingProxyType(self._control)

    @property
    def vocab_size(self) -> int:
        return len(self._bytes)

    def id(self, name: str) -> int:
        """The id of a control token. KeyError for any other text."""
        return self._control[name]

    def encode(self, text: str) -> list[int]:
        """Ids of a text, never those of control tokens. Lone surrogates, which are not text, become "?"."""
        return list(self.encoded(text))

    def encoded(self, text: str) -> Sequence[int]:
        """`encode` without the copy: texts that recur (names, tool blocks) are encoded once. Do not change the answer."""
        return self._remembered(text) if len(text) <= _REMEMBERED_CHARS else self._encode(text)

    def encode_between(self, before: str, text: str, after: str) -> list[int]:
        """Ids of three texts as one. `before` and `after` are a template's, and what they spell is control; `text` is not."""
        *opening, last = self._split_at_added(before)
        first, *closing = self._split_at_added(after)
        return [*self._template_ids(opening), *self.encoded(last + text + first), *self._template_ids(closing)]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of many texts, in parallel."""
        return [e.ids for e in self._bpe.encode_batch_fast([_text(t) for t in texts], add_special_tokens=False)]

    def decode(self, ids: Iterable[int], control: bool = True) -> str:
        """The text of ids; control tokens by name, or left out with control=False. Bytes that are no UTF-8 become U+FFFD."""
        drop = frozenset() if control else frozenset(self._control.values())
        return self.decode_bytes(i for i in ids if i not in drop).decode("utf-8", "replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of ids, which may begin or end within a character; ids outside the vocabulary stand for U+FFFD."""
        table, size = self._bytes, len(self._bytes)
        return b"".join([table[i] if 0 <= i < size else _UNKNOWN for i in ids])

    def piece(self, token_id: int) -> str:
        """One token for people to read; bytes that are no UTF-8 alone are written as \\xNN, ids outside as #id."""
        if not 0 <= token_id < len(self._bytes):
            return f"#{token_id}"
        return self._bytes[token_id].decode("utf-8", "backslashreplace")

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that one token stands for (a control token: those of its name)."""
        return self._bytes[token_id]

    def _template_ids(self, pieces: Sequence[str]) -> list[int]:
        """Ids of what `_split_at_added` made: text and added tokens in turn."""
        return [i for p in pieces for i in ((self._added[p],) if p in self._added else self.encoded(p))]

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self._bpe.encode(_text(text), add_special_tokens=False).ids)


_UNKNOWN = "\ufffd".encode()


def _text(text: str) -> str:
    """JSON can smuggle in lone surrogates, which no UTF-8 holds."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def _bytes_per_id(vocab: Mapping[str, int], added: Mapping[str, int]) -> list[bytes]:
    """Bytes of every id. Byte-level BPE writes printable bytes as themselves and the others as U+0100 onwards."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    byte_of = {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(others)}
    size = max([*vocab.values(), *added.values()]) + 1
    table = [_UNKNOWN] * size
    for text, index in vocab.items():
        table[index] = bytes(byte_of[character] for character in text)
    for text, index in added.items():
        table[index] = text.encode()
    return table
