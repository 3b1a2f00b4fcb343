"""number theory: common divisors, counts of divisors, powers and congruences."""

from __future__ import annotations

import random
from math import gcd, prod

from arcforge.envs.levelled import Exercise
from arcforge.envs.math.notation import exercise

KIND = "number_theory"
PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23)


def make(rng: random.Random, level: int) -> Exercise:
    return (_common_divisor, _divisors, _power, _two_congruences, _three_congruences)[level - 1](rng)


def _common_divisor(rng: random.Random) -> Exercise:
    common = rng.randint(2, 40)
    a, b = common * rng.randint(3, 30), common * rng.randint(3, 30)
    steps, x, y = [], max(a, b), min(a, b)
    while y:
        steps.append(f"{x} = {x // y} \\cdot {y} + {x % y}")
        x, y = y, x % y
    return exercise(
        KIND, 1, ("gcd", max(a, b), min(a, b)),
        f"What is the greatest common divisor of {a} and {b}?",
        f"Euclid's algorithm: ${'$, $'.join(steps)}$. The last remainder that is not zero is {x}.",
        gcd(a, b),
    )  # fmt: skip


def _divisors(rng: random.Random) -> Exercise:
    powers = {p: rng.randint(1, 4) for p in sorted(rng.sample(PRIMES[:6], rng.randint(2, 3)))}
    n = prod(p**e for p, e in powers.items())
    written = " \\cdot ".join(f"{p}^{{{e}}}" for p, e in powers.items())
    factors = " \\cdot ".join(f"({e} + 1)" for e in powers.values())
    count = prod(e + 1 for e in powers.values())
    return exercise(
        KIND, 2, ("divisors", n),
        f"How many positive divisors does {n} have?",
        f"${n} = {written}$, so there are ${factors} = {count}$ divisors.",
        count,
    )  # fmt: skip


def _power(rng: random.Random) -> Exercise:
    m = rng.randint(11, 99)
    a, exponent = rng.randint(2, m - 1), rng.randint(30, 400)
    steps, base, left, result = [], a % m, exponent, 1
    while left:
        if left % 2:
            result = result * base % m
            steps.append(f"{result}")
        base, left = base * base % m, left // 2
    return exercise(
        KIND, 3, ("power", a, exponent, m),
        f"What is the remainder when ${a}^{{{exponent}}}$ is divided by {m}?",
        f"In binary the exponent is {exponent:b}. Multiplying the squares that belong to its ones, from the right, leaves "
        f"{', '.join(steps)} modulo {m}.",
        result,
    )  # fmt: skip


def _two_congruences(rng: random.Random) -> Exercise:
    return _congruences(rng, 4, 2, range(5, 30))


def _three_congruences(rng: random.Random) -> Exercise:
    return _congruences(rng, 5, 3, range(4, 24))


def _congruences(rng: random.Random, level: int, count: int, moduli: range) -> Exercise:
    while True:
        chosen = sorted(rng.sample(moduli, count))
        if all(gcd(a, b) == 1 for i, a in enumerate(chosen) for b in chosen[i + 1 :]):
            break
    remainders = [rng.randrange(1, m) for m in chosen]
    n, step, found = remainders[0], chosen[0], [f"{remainders[0]}"]
    for m, r in zip(chosen[1:], remainders[1:]):
        while n % m != r:
            n += step
        step *= m
        found.append(f"{n}")
    told = ", ".join(f"remainder {r} when divided by {m}" for m, r in zip(chosen, remainders))
    return exercise(
        KIND, level, ("congruences", tuple(chosen), tuple(remainders)),
        f"Find the smallest positive integer that leaves {told}.",
        f"Taking the conditions one after another, the smallest numbers that meet them are {', '.join(found)}.",
        n,
    )  # fmt: skip
