"""stoichiometry: molar masses, solutions, masses of products, limiting reactants and yields."""

from __future__ import annotations

import random
import re

from arcforge.envs.levelled import Exercise
from arcforge.envs.science.quantity import exercise, written

KIND = "stoichiometry"
ATOMS = {
    "H": 1.008, "C": 12.011, "N": 14.007, "O": 15.999, "Na": 22.990, "Mg": 24.305, "Al": 26.982, "S": 32.06, "Cl": 35.45,
    "K": 39.098, "Ca": 40.078, "Fe": 55.845, "Cu": 63.546, "Zn": 65.38, "P": 30.974,
}  # fmt: skip
COMPOUNDS = (
    "H2O", "CO2", "NaCl", "NH3", "CH4", "C6H12O6", "CaCO3", "H2SO4", "NaOH", "KCl", "MgO", "Al2O3", "Fe2O3", "C2H6O", "CuO",
    "ZnO", "HNO3", "C3H8", "KOH", "MgCl2",
)  # fmt: skip
# Reactants and products with their coefficients.
REACTIONS = (
    ({"H2": 2, "O2": 1}, {"H2O": 2}),
    ({"N2": 1, "H2": 3}, {"NH3": 2}),
    ({"CH4": 1, "O2": 2}, {"CO2": 1, "H2O": 2}),
    ({"C3H8": 1, "O2": 5}, {"CO2": 3, "H2O": 4}),
    ({"Al": 4, "O2": 3}, {"Al2O3": 2}),
    ({"Fe": 4, "O2": 3}, {"Fe2O3": 2}),
    ({"Mg": 2, "O2": 1}, {"MgO": 2}),
    ({"Na": 2, "Cl2": 1}, {"NaCl": 2}),
    ({"Zn": 1, "HCl": 2}, {"ZnCl2": 1, "H2": 1}),
    ({"CaCO3": 1, "HCl": 2}, {"CaCl2": 1, "H2O": 1, "CO2": 1}),
    ({"NaOH": 2, "H2SO4": 1}, {"Na2SO4": 1, "H2O": 2}),
    ({"Fe2O3": 1, "CO": 3}, {"Fe": 2, "CO2": 3}),
)


def make(rng: random.Random, level: int) -> Exercise:
    return (_moles, _solution, _product, _limiting, _yield)[level - 1](rng)


def molar_mass(formula: str) -> float:
    """In g/mol."""
    return sum(ATOMS[atom] * int(count or 1) for atom, count in re.findall(r"([A-Z][a-z]?)(\d*)", formula))


def _moles(rng: random.Random) -> Exercise:
    formula, mass = rng.choice(COMPOUNDS), rng.randint(11, 999) / 2
    m = molar_mass(formula)
    return exercise(
        KIND, 1, ("moles", formula, mass),
        f"How many moles are {mass:g} g of {formula}?",
        f"The molar mass of {formula} is {m:.3f} g/mol, so $\\frac{{{mass:g}}}{{{m:.3f}}} = {written(mass / m)}$ mol.",
        mass / m, "mol", "g",
    )  # fmt: skip


def _solution(rng: random.Random) -> Exercise:
    formula = rng.choice(("NaCl", "NaOH", "KCl", "KOH", "MgCl2", "C6H12O6", "HNO3"))
    mass, volume = rng.randint(10, 400) / 2, rng.randint(10, 200) * 10
    m = molar_mass(formula)
    answer = mass / m / (volume / 1000)
    return exercise(
        KIND, 2, ("solution", formula, mass, volume),
        f"{mass:g} g of {formula} are dissolved to make {volume} mL of solution. What is the concentration?",
        f"${written(mass / m)}$ mol in {volume / 1000:g} L: ${written(answer)}$ mol/L.",
        answer, "mol/L", "mol",
    )  # fmt: skip


def _reaction(rng: random.Random) -> tuple[dict[str, int], dict[str, int], str]:
    left, right = rng.choice(REACTIONS)
    return left, right, f"{_side(left)} -> {_side(right)}"


def _side(terms: dict[str, int]) -> str:
    return " + ".join(f"{count if count > 1 else ''} {formula}".strip() for formula, count in terms.items())


def _product(rng: random.Random) -> Exercise:
    left, right, equation = _reaction(rng)
    reactant, product, mass = rng.choice(list(left)), rng.choice(list(right)), rng.randint(20, 999) / 2
    n = mass / molar_mass(reactant)
    made = n * right[product] / left[reactant]
    answer = made * molar_mass(product)
    return exercise(
        KIND, 3, ("product", equation, reactant, product, mass),
        f"{mass:g} g of {reactant} react completely: {equation}. What mass of {product} is formed?",
        f"${written(n)}$ mol of {reactant} give ${written(made)}$ mol of {product}, that is ${written(answer)}$ g.",
        answer, "g", "mol",
    )  # fmt: skip


def _limited(rng: random.Random) -> tuple[dict[str, float], str, str, float, str]:
    """(grams of each reactant, limiting reactant, product, its grams, equation)."""
    while True:
        left, right, equation = _reaction(rng)
        masses = {formula: rng.randint(20, 400) / 2 for formula in left}
        runs = {formula: masses[formula] / molar_mass(formula) / count for formula, count in left.items()}
        limiting, other = sorted(runs, key=lambda formula: runs[formula])
        if runs[other] > 1.1 * runs[limiting]:
            break
    product = rng.choice(list(right))
    return masses, limiting, product, runs[limiting] * right[product] * molar_mass(product), equation


def _limiting(rng: random.Random) -> Exercise:
    masses, limiting, product, answer, equation = _limited(rng)
    given = " and ".join(f"{mass:g} g of {formula}" for formula, mass in masses.items())
    return exercise(
        KIND, 4, ("limiting", equation, product, tuple(masses.values())),
        f"{given} are brought to react: {equation}. What is the largest mass of {product} that can form?",
        f"{limiting} runs out first. It allows ${written(answer / molar_mass(product))}$ mol of {product}: ${written(answer)}$ g.",
        answer, "g", "mol",
    )  # fmt: skip


def _yield(rng: random.Random) -> Exercise:
    masses, limiting, product, most, equation = _limited(rng)
    per_cent = rng.randint(40, 96)
    answer = most * per_cent / 100
    given = " and ".join(f"{mass:g} g of {formula}" for formula, mass in masses.items())
    return exercise(
        KIND, 5, ("yield", equation, product, tuple(masses.values()), per_cent),
        f"{given} react: {equation}. The yield is {per_cent}%. What mass of {product} is obtained?",
        f"{limiting} runs out first and allows ${written(most)}$ g of {product}; {per_cent}% of it are ${written(answer)}$ g.",
        answer, "g", "mol",
    )  # fmt: skip
