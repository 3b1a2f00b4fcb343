"""What a boxed answer is: a number, a set, a bracketed tuple or interval, a union of those, or an expression.

Numbers are compared exactly and must be written as one number: `17 \\cdot 23` restates a question instead of answering it.
Everything made of parts is compared part by part; only what is left goes to symbolic algebra.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

Shape = Literal["number", "set", "bracketed", "union", "text", "expression"]
LARGEST_EXPONENT = 60

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.\d*)?|\.\d+)"
_SIGNED = rf"[+-]?\s*{_DIGITS}"
_FRACTION = rf"\\frac\s*(?:\{{\s*({_SIGNED})\s*\}}|(\d))\s*(?:\{{\s*({_SIGNED})\s*\}}|(\d))"
_NUMBERS = {
    "decimal": re.compile(rf"({_DECIMAL})"),
    "slash": re.compile(rf"({_DIGITS})\s*/\s*({_DIGITS})"),
    "frac": re.compile(_FRACTION),
    "mixed": re.compile(rf"({_DIGITS})\s*{_FRACTION}"),
    "scientific": re.compile(rf"({_DECIMAL})\s*(?:\\times|\\cdot|\*|×)\s*10\s*\^\s*(?:\{{\s*([+-]?\d+)\s*\}}|(\d))"),
}
_SPACES = re.compile(r"\\[,;:! ]|~|\\quad|\\qquad|\s+")
_UNIT = re.compile(r"\s*(?:\\(?:text|mathrm|textrm|mbox)\s*\{[^{}\d\\]*\}|\^\s*\{?\s*\\circ\s*\}?|\\degree)\s*$")
_ASSIGNED = re.compile(r"[A-Za-z](?:_\{?\w+\}?)?'?(?:\([A-Za-z]\))?\s*=\s*([^=]+)")
_PAIR_ASSIGNED = re.compile(r"\(\s*[A-Za-z](?:\s*,\s*[A-Za-z])+\s*\)\s*=\s*(.+)")
_WORD = re.compile(r"[A-Za-z][A-Za-z' -]+|\([A-Z]\)|[A-Z]")
_OR = re.compile(r"\\(?:text|mathrm|textrm|mbox)\s*\{\s*,?\s*(?:or|and)\s*\}|\b(?:or|and)\b|;")
_EMPTY = re.compile(r"\\emptyset|\\varnothing|\\\{\s*\\\}|∅")
_INFINITE = {r"\infty": "+", r"+\infty": "+", r"-\infty": "-", "∞": "+", "-∞": "-", "+∞": "+"}
_UNEVALUATED = re.compile(
    r"\\(?:int|iint|oint|sum|prod|lim|limsup|liminf|binom|dbinom|tbinom|choose|gcd|lcm|operatorname|bmod|pmod|mod|det|max"
    r"|min|sup|inf|lfloor|lceil|partial|begin|Pr|partial|prime)\b|!|\\frac\s*\{\s*d[^{}]*\}\s*\{\s*d|'|[=<>]|\\(?:le|ge|lt|gt|ne)"
    r"|\\(?:leq|geq|neq|approx|sim|equiv|to|in|ldots|dots|cdots)\b"
)


@dataclass(frozen=True)
class Answer:
    """parts: of a set the elements, of a union the pieces, of brackets what they hold. brackets: "(]" and the like."""

    shape: Shape
    text: str
    value: Fraction = Fraction(0)
    parts: tuple[Answer, ...] = ()
    brackets: str = ""
    percent: bool = False


def tidy(text: str) -> str:
    """Without dollar signs, sizing commands, thin spaces and a full stop at the end; one spelling of fractions and minus."""
    text = text.strip().strip("$").strip().replace("−", "-").replace("–", "-").replace("{,}", ",").replace("\\$", "")
    text = re.sub(r"\\(?:left|right|displaystyle|big|Big|bigl|bigr)(?![A-Za-z])", "", text)
    text = re.sub(r"\\[dtc]frac(?![A-Za-z])", r"\\frac", text)
    text = re.sub(r"\\lbrace(?![A-Za-z])", r"\\{", text)
    text = re.sub(r"\\rbrace(?![A-Za-z])", r"\\}", text)
    text = re.sub(r"\\!\s*", "", text)
    text = re.sub(r"(?<=\d)\\,(?=\d{3}(?!\d))", ",", text)
    text = _SPACES.sub(" ", text).strip()
    return text[:-1].rstrip() if text.endswith(".") and not text.endswith("..") else text


def number(text: str) -> Fraction | None:
    """The value of one number: integer, decimal, fraction, mixed number, a power of ten times a decimal, or percentage.

    A unit or word in \\text after it is left out. None for anything else, arithmetic included.
    """
    text = _UNIT.sub("", tidy(text))
    percent = re.search(r"\s*(?:\\%|%|\\text\s*\{\s*percent\s*\})$", text)
    if percent:
        inner = number(text[: percent.start()])
        return None if inner is None else inner / 100
    sign = -1 if text.startswith("-") else 1
    text = text[1:].strip() if text.startswith(("+", "-")) else text
    for name, pattern in _NUMBERS.items():
        match = pattern.fullmatch(text)
        if match:
            value = _value(name, [group for group in match.groups() if group is not None])
            return None if value is None else sign * value
    return None


def read(text: str) -> Answer:
    """The answer that a box holds."""
    text = tidy(text)
    assigned = _PAIR_ASSIGNED.fullmatch(text) or _ASSIGNED.fullmatch(text)
    if assigned and not _OR.search(text):
        text = assigned[1].strip()
    value = number(text)
    if value is not None:
        return Answer("number", text, value, percent="%" in text)
    if _EMPTY.fullmatch(text):
        return Answer("set", text)
    plain = re.sub(r"\\(?:text|mathrm|textrm|textbf|mathbf|mbox)\s*\{([^{}]*)\}", r"\1", text).strip()
    if _WORD.fullmatch(plain) and not (len(plain) > 1 and plain.islower() and len(plain) < 3):
        return Answer("text", plain)
    return _compound(text) or Answer("expression", text)


def as_set(answer: Answer) -> tuple[Answer, ...]:
    """The elements of what stands where a set is asked for: braces, or a list with commas, `or` or a plus-minus sign."""
    if answer.shape == "set":
        return answer.parts
    elements: list[Answer] = []
    for piece in _pieces(answer.text):
        signs = ("+", "-") if r"\pm" in piece else ("",)
        spelled = [re.sub(r"\\pm(?![A-Za-z])", sign, piece) if sign else piece for sign in signs]
        elements += map(read, spelled)
    return tuple(elements)


def refusal(text: str, reference: str) -> str:
    """Why an expression is no finished answer: it leaves something to work out that the reference does not; or empty."""
    found = _UNEVALUATED.search(text)
    if found and found[0] not in reference:
        return f"{found[0]} leaves the answer to be worked out"
    return ""


def infinite(text: str) -> str:
    """The sign of an infinity, "+" or "-"; else empty."""
    return _INFINITE.get(text.replace(" ", ""), "")


def _value(name: str, groups: list[str]) -> Fraction | None:
    values = [Fraction(group.replace(",", "").replace(" ", "").rstrip(".")) for group in groups]
    if name == "decimal":
        return values[0]
    if name == "scientific":
        exponent = int(groups[1])
        return values[0] * Fraction(10) ** exponent if abs(exponent) <= LARGEST_EXPONENT else None
    whole, (top, bottom) = (values[0], values[1:]) if name == "mixed" else (Fraction(0), values)
    return None if bottom == 0 else whole + top / bottom


def _compound(text: str) -> Answer | None:
    if re.search(r"\\cup(?![A-Za-z])|∪", text):
        pieces = [_compound(piece.strip()) for piece in re.split(r"\\cup(?![A-Za-z])|∪", text)]
        if all(piece is not None and piece.shape in ("bracketed", "set") for piece in pieces):
            return Answer("union", text, parts=tuple(piece for piece in pieces if piece))
        return None
    if text.startswith("\\{") and text.endswith("\\}"):
        inner = text[2:-2].strip()
        return Answer("set", text, parts=as_set(Answer("expression", inner))) if _whole(inner) else None
    if text[:1] in "([" and text[-1:] in ")]" and _whole(text[1:-1]):
        pieces = _pieces(text[1:-1])
        if len(pieces) > 1:
            return Answer("bracketed", text, parts=tuple(map(read, pieces)), brackets=text[0] + text[-1])
        return None
    if len(_pieces(text)) > 1:
        return Answer("set", text, parts=as_set(Answer("expression", text)))
    return None


def _whole(text: str) -> bool:
    """Whether brackets never close more than they opened: `(1)(2)` has no outer pair."""
    depth = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if depth < 0:
            return False
    return depth == 0


def _pieces(text: str) -> list[str]:
    """Split at commas, semicolons, `or` and `and` outside of brackets."""
    pieces, depth = [""], 0
    for character in _OR.sub(",", text):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            pieces.append("")
        else:
            pieces[-1] += character
    return [piece.strip() for piece in pieces if piece.strip()]
