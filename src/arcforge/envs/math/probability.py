"""probability: draws, dice, Bayes' rule and hypergeometric tails, as exact fractions."""

from __future__ import annotations

import random
from fractions import Fraction
from math import comb

from arcforge.envs.levelled import Exercise
from arcforge.envs.math.notation import exercise, latex

KIND = "probability"
EXACT = "Give an exact fraction."


def make(rng: random.Random, level: int) -> Exercise:
    return (_one_draw, _dice, _same_colour, _bayes, _at_least)[level - 1](rng)


def _one_draw(rng: random.Random) -> Exercise:
    red, blue, green = (rng.randint(2, 15) for _ in range(3))
    total = red + blue + green
    answer = Fraction(red, total)
    return exercise(
        KIND, 1, ("draw", red, total),
        f"A bag holds {red} red, {blue} blue and {green} green balls. One is drawn. What is the probability that it is red? {EXACT}",
        f"{red} of {total} balls are red: ${latex(answer)}$.",
        answer,
    )  # fmt: skip


def _dice(rng: random.Random) -> Exercise:
    first, second = rng.randint(4, 20), rng.randint(4, 20)
    total = rng.randint(3, first + second - 1)
    ways = sum(1 <= total - a <= second for a in range(1, first + 1))
    answer = Fraction(ways, first * second)
    return exercise(
        KIND, 2, ("dice", *sorted((first, second)), total),
        f"A fair die with {first} sides, numbered from 1, and one with {second} sides are rolled. "
        f"What is the probability that the sum is {total}? {EXACT}",
        f"{ways} of ${first} \\cdot {second} = {first * second}$ equally likely pairs have this sum: ${latex(answer)}$.",
        answer,
    )  # fmt: skip


def _same_colour(rng: random.Random) -> Exercise:
    red, blue, drawn = rng.randint(4, 14), rng.randint(4, 14), rng.randint(2, 4)
    ways, every = comb(red, drawn) + comb(blue, drawn), comb(red + blue, drawn)
    answer = Fraction(ways, every)
    return exercise(
        KIND, 3, ("same", *sorted((red, blue)), drawn),
        f"From {red} red and {blue} blue cards {drawn} are drawn without replacement. "
        f"What is the probability that all are of one colour? {EXACT}",
        f"$\\binom{{{red}}}{{{drawn}}} + \\binom{{{blue}}}{{{drawn}}} = {ways}$ of "
        f"$\\binom{{{red + blue}}}{{{drawn}}} = {every}$ hands: ${latex(answer)}$.",
        answer,
    )  # fmt: skip


def _bayes(rng: random.Random) -> Exercise:
    share, caught, false = rng.randint(1, 30), rng.randint(60, 99), rng.randint(1, 20)
    ill, well = share * caught, (100 - share) * false
    answer = Fraction(ill, ill + well)
    return exercise(
        KIND, 4, ("bayes", share, caught, false),
        f"{share}% of the parts of a factory are faulty. A test flags {caught}% of the faulty parts and {false}% of the others. "
        f"A part is flagged. What is the probability that it is faulty? {EXACT}",
        f"Of 10000 parts {ill} are faulty and flagged and {well} are flagged without a fault: "
        f"$\\frac{{{ill}}}{{{ill + well}}} = {latex(answer)}$.",
        answer,
    )  # fmt: skip


def _at_least(rng: random.Random) -> Exercise:
    red, blue = rng.randint(4, 12), rng.randint(4, 12)
    drawn = rng.randint(3, 5)
    least = rng.randint(2, min(drawn - 1, red))
    counts = [comb(red, k) * comb(blue, drawn - k) for k in range(least, min(drawn, red) + 1)]
    every = comb(red + blue, drawn)
    which = ", ".join(str(least + place) for place in range(len(counts)))
    answer = Fraction(sum(counts), every)
    return exercise(
        KIND, 5, ("at least", red, blue, drawn, least),
        f"From {red} red and {blue} blue cards {drawn} are drawn without replacement. "
        f"What is the probability of at least {least} red ones? {EXACT}",
        f"Hands with exactly {which} red cards: ${' + '.join(map(str, counts))} = {sum(counts)}$ of {every}, "
        f"so ${latex(answer)}$.",
        answer,
    )  # fmt: skip
