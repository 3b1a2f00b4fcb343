"""Text of single tokens, read from a checkpoint's tokenizer.json: enough to look at; `chat` holds the tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

from arcforge.core.errors import UserError


def byte_of_character() -> dict[str, int]:
    """Inverse of the byte-level BPE alphabet: printable bytes stand for themselves, the others for U+0100 onwards."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(others)}


class Pieces:
    """Token id -> text. Bytes that are not UTF-8 alone are written as \\xNN, ids without a piece as #id."""

    def __init__(self, texts: dict[int, str], control: frozenset[int] = frozenset()) -> None:
        self._texts, self.control = texts, control

    @classmethod
    def load(cls, folder: Path) -> Pieces:
        """From `folder`/tokenizer.json. UserError when it is no byte-level BPE tokenizer file."""
        path = folder / "tokenizer.json"
        try:
            data = json.loads(path.read_text())
            vocabulary, added = data["model"]["vocab"], data.get("added_tokens", [])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: cannot be read as a tokenizer: {error}") from None
        byte_of = byte_of_character()
        texts = {index: _decode(piece, byte_of) for piece, index in vocabulary.items()}
        texts |= {token["id"]: token["content"] for token in added}
        return cls(texts, frozenset(token["id"] for token in added))

    @classmethod
    def of_run(cls, run: Path) -> Pieces:
        """The tokenizer of a run, from its latest stage that saved one; without any, ids are shown as #id."""
        found = sorted((run / "stages").glob("[0-9][0-9]-*/**/tokenizer.json"))
        return cls.load(found[-1].parent) if found else cls({})

    def text(self, index: int) -> str:
        return self._texts.get(index, f"#{index}")


def _decode(piece: str, byte_of: dict[str, int]) -> str:
    if not all(character in byte_of for character in piece):
        return piece
    return bytes(byte_of[character] for character in piece).decode(errors="backslashreplace")
