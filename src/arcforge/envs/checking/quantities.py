"""Equality of physical quantities, by dimension and tolerance, with pint. Runs in the checking process.

A quantity is one number and a unit; the number may carry any sensible count of significant digits and a power of ten.
"""

from __future__ import annotations

import re
from typing import Any

import pint

WARM_UP = (({"value": 1.0, "unit": "m/s", "tolerance": 0.01}, "3.6 km/h"),)
LARGEST_POWER, LARGEST_EXPONENT = 6, 40

_REGISTRY = pint.UnitRegistry()
_NUMBER = re.compile(
    r"([+-]?(?:\d{1,3}(?:[, ]\d{3})+(?![\d])|\d+)?(?:\.\d+)?)\s*"
    r"(?:(?:\*|×|x)\s*10\s*\^?\s*(?:\{\s*([+-]?\d+)\s*\}|\(\s*([+-]?\d+)\s*\)|([+-]?\d+))|[eE]([+-]?\d+))?\s*(.*)",
    re.S,
)
_UNIT = re.compile(r"[A-Za-zµΩ°%*/().^ 0-9+-]*")
_SPELLINGS = {
    "amp": "ampere", "amps": "ampere", "Amp": "ampere", "Amps": "ampere", "kmh": "km/h", "Kg": "kg", "KG": "kg", "cms": "cm",
    "sec": "s", "secs": "s", "Joules": "J", "joules": "J", "Newtons": "N", "Watts": "W", "Volts": "V", "Ohms": "ohm",
    "Ohm": "ohm", "ohms": "ohm", "Pascal": "Pa", "Pascals": "Pa", "moles": "mol", "Celsius": "degC", "Kelvin": "K",
    "Fahrenheit": "degF",
}  # fmt: skip
_COMMANDS = {
    r"\mu": "µ", r"\Omega": "Ω", r"\cdot": "*", r"\times": "×", r"\degree": "°", r"^{\circ}": "°", r"^\circ": "°",
    r"\circ": "°", r"\%": "%", r"\,": " ", r"\;": " ", r"\:": " ", r"\!": "", r"\ ": " ", "~": " ", "·": "*", "⋅": "*",
    "μ": "µ", "−": "-", "²": "^2", "³": "^3", "⁻¹": "^-1", "⁻²": "^-2", r"\left": "", r"\right": "", "$": "",
}  # fmt: skip


def read_reference(reference: dict[str, Any]) -> tuple[Any, float]:
    """(quantity, relative tolerance) of {"value", "unit", "tolerance"}."""
    quantity = _REGISTRY.Quantity(float(reference["value"]), _REGISTRY.parse_units(reference["unit"]))
    return quantity, float(reference["tolerance"])


def compare(reference: tuple[Any, float], answer: str) -> tuple[bool, str]:
    """Whether `answer` is within the tolerance of the reference, in any unit of its dimension."""
    wanted, tolerance = reference
    number, unit = split(answer)
    if number is None:
        return False, "no number at the beginning"
    if not unit and not wanted.unitless:
        return False, "the unit is missing"
    given = _REGISTRY.Quantity(number, _units(unit))
    if given.dimensionality != wanted.dimensionality:
        return False, f"{unit} is no unit of {wanted.units:~}"
    value = given.to(wanted.units).magnitude
    return abs(value - wanted.magnitude) <= tolerance * abs(wanted.magnitude), ""


def split(answer: str) -> tuple[float | None, str]:
    """(number, unit as text) of what a box holds; None where there is not one number at the beginning."""
    text = re.sub(r"\\(?:text|mathrm|textrm|rm|mbox|unit|si|operatorname)\s*\{([^{}]*)\}", r" \1 ", answer.strip())
    text = text.replace("{,}", ",").replace(r"\dfrac", r"\frac")
    for command, character in _COMMANDS.items():
        text = text.replace(command, character)
    text = re.sub(r"\s*\^\s*\{\s*([+-]?\d+)\s*\}", r"^\1", text)
    text = re.sub(r"\\frac\s*\{\s*([A-Za-zµΩ][^{}]*)\}\s*\{([^{}]*)\}", r"\1/(\2)", text)
    match = _NUMBER.fullmatch(text.strip())
    if not match or not any(character.isdigit() for character in match[1]):
        return None, ""
    exponent = next((int(group) for group in match.groups()[1:5] if group), 0)
    if abs(exponent) > LARGEST_EXPONENT:
        return None, ""
    return float(re.sub(r"[, ]", "", match[1])) * 10.0**exponent, match[6].strip()


def _units(text: str) -> Any:
    """ValueError for what is no unit: anything but names, small whole powers, products and quotients."""
    text = re.sub(r"°\s*([CF])\b", r"deg\1", text).replace("{", "").replace("}", "").replace("×", "*")
    text = re.sub(r"µ\s+", "µ", re.sub(r"([kMm])\s+Ω", r"\1Ω", text))  # a prefix set apart from its unit
    text = re.sub(r"([A-Za-z])([23])(?![\d])", r"\1^\2", text)
    text = re.sub(r"[A-Za-z]+", lambda match: _SPELLINGS.get(match[0], match[0]), text)
    powers = [int(power) for power in re.findall(r"(\d+)", text)]
    if not _UNIT.fullmatch(text) or any(power > LARGEST_POWER for power in powers):
        raise ValueError(f"{text!r} is no unit")
    return _REGISTRY.parse_units(text.strip().rstrip("."))
