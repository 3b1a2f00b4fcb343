"""Equality of two mathematical expressions in LaTeX, by math-verify (sympy). Runs in the checking process."""

from __future__ import annotations

import logging
from typing import Any

from math_verify import LatexExtractionConfig, parse, verify

DIGITS = 12  # floating-point comparison: decimals do not stand for what they only come near
WARM_UP = (
    ("2\\sqrt{3}", "1-\\sqrt{7}"),
    ("-4+\\sqrt{11}", "4-\\sqrt{11}"),
    ("\\frac{3\\sqrt{15}}{4}", "\\frac{\\sqrt{5}}{2}"),
    ("\\frac{250}{9}\\pi", "\\frac{250\\pi^2}{3}"),
    ("(-6x+5)e^{-2x}", "(6x-7)e^{3x}"),
    ("x^{2}-3x+1", "x(x-3)"),
)
logging.getLogger("math_verify").setLevel(logging.ERROR)


def read_reference(text: str) -> list[Any]:
    """ValueError when math-verify does not understand it."""
    parsed = _parse(text)
    if not _same(parsed, parsed):
        raise ValueError(f"{text!r} is not equal to itself")
    return parsed


def compare(reference: list[Any], answer: str) -> tuple[bool, str]:
    return _same(reference, _parse(answer)), ""


def _parse(text: str) -> list[Any]:
    """ValueError when there is no expression: a list of strings alone would be compared as text."""
    no_timeout: Any = None  # its own is by a signal; this process is limited as a whole
    parsed = parse(f"${text}$", extraction_config=[LatexExtractionConfig()], parsing_timeout=no_timeout)
    kept = [item for item in parsed if not isinstance(item, str)]
    if not kept:
        raise ValueError(f"{text!r} is no expression")
    return kept[:1]


def _same(reference: list[Any], answer: list[Any]) -> bool:
    return bool(verify(reference, answer, float_rounding=DIGITS, timeout_seconds=None))
