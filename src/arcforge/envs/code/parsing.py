"""parsing: sums in text, records, run lengths, brackets, arithmetic with its own precedence."""

from __future__ import annotations

import random

from arcforge.core.words import NAMES
from arcforge.envs.code.problem import problem
from arcforge.envs.levelled import Exercise

KIND = "parsing"
MARKS = ",;|/#&!"


def make(rng: random.Random, level: int) -> Exercise:
    return (_sum, _records, _run_lengths, _brackets, _arithmetic)[level - 1](rng)


def _sum(rng: random.Random) -> Exercise:
    mark, n, sign = rng.choice(MARKS), rng.randint(2, 9), rng.choice("~^%")
    source = f"""
        def solve(s):
            return sum((-1 if p[0] == {sign!r} else 1) * int(p.strip({sign!r})) for p in s.split({mark!r}) if p) * {n}
        """

    def text() -> str:
        return mark.join(rng.choice(("", sign)) + str(rng.randint(0, 99)) for _ in range(rng.randint(1, 6)))

    return problem(
        KIND, 1, ("sum", mark, n, sign),
        f"A string holds integers separated by {mark!r}; a {sign!r} before one makes it negative. "
        f"Write a Python function that returns {n} times their sum (0 for the empty string).",
        source, [(text(),) for _ in range(10)] + [("",)], (f"* {n}", f"* {n + 1}"),
    )  # fmt: skip


def _records(rng: random.Random) -> Exercise:
    outer, inner = rng.sample(MARKS + ":=", 2)
    how, keep = rng.choice(
        (("last", "d[k] = int(v)"), ("first", "d.setdefault(k, int(v))"), ("sum of all", "d[k] = d.get(k, 0) + int(v)"))
    )
    source = f"""
        def solve(s):
            d = {{}}
            for part in s.split({outer!r}):
                if part:
                    k, v = part.split({inner!r})
                    {keep}
            return d
        """

    def text() -> str:
        names = rng.sample(NAMES, 3)
        return outer.join(f"{rng.choice(names)}{inner}{rng.randint(0, 99)}" for _ in range(rng.randint(1, 6)))

    return problem(
        KIND, 2, ("records", outer, inner, how),
        f"A string holds records separated by {outer!r}, each a name, {inner!r} and an integer. "
        f"Write a Python function that returns a dict from each name to the {how} of its values. Of the empty string it is empty.",
        source, [(text(),) for _ in range(12)] + [("",)], ("return d", "return list(d)"),
    )  # fmt: skip


def _run_lengths(rng: random.Random) -> Exercise:
    most, mark = rng.randint(2, 9), rng.choice("*#@%&")
    least = rng.randint(2, 4)
    source = f"""
        def solve(s):
            out, i = '', 0
            while i < len(s):
                j = i
                while j < len(s) and s[j] == s[i] and j - i < {most + least}:
                    j += 1
                n = j - i
                out += s[i] * n if n < {least} else f'{{n}}{mark}{{s[i]}}'
                i = j
            return out
        """

    def text() -> str:
        return "".join(rng.choice("abc") * rng.randint(1, 14) for _ in range(rng.randint(1, 5)))

    return problem(
        KIND, 3, ("run lengths", most + least, mark, least),
        f"Compress a string of letters: from the left, take the longest run of one letter, but at most {most + least} of it at a "
        f"time. Write a run of {least} or more as its length, {mark!r} and the letter, a shorter one as it is.",
        source, [(text(),) for _ in range(12)] + [("",), ("a",)], (f"n < {least}", f"n < {least + 1}"),
    )  # fmt: skip


def _brackets(rng: random.Random) -> Exercise:
    pairs = rng.sample(("()", "[]", "{}", "<>"), 2)
    weights = rng.sample(range(1, 10), 2)
    weight_of = {pair[0]: weight for pair, weight in zip(pairs, weights)}
    closing = {pair[1]: pair[0] for pair in pairs}
    source = f"""
        def solve(s):
            weight, close = {weight_of!r}, {closing!r}
            stack, total, best = [], 0, 0
            for c in s:
                if c in weight:
                    stack.append(c)
                    total += weight[c]
                    best = max(best, total)
                elif c in close:
                    if not stack or stack.pop() != close[c]:
                        return -1
                    total -= weight[close[c]]
            return -1 if stack else best
        """

    def text() -> str:
        def part(depth: int) -> str:
            inner = "".join(part(depth + 1) for _ in range(rng.randint(0, 2))) if depth < 4 else "x"
            pair = rng.choice(pairs)
            return f"{pair[0]}{inner}{pair[1]}"

        whole = part(0) + part(0)
        cut = rng.randrange(len(whole))
        return whole if rng.random() < 0.7 else whole[:cut] + whole[cut + 1 :]

    told = " and ".join(f"{pair[0]} {weight}" for pair, weight in zip(pairs, weights))
    return problem(
        KIND, 4, ("brackets", tuple(pairs), tuple(weights)),
        f"A string holds the brackets {' '.join(pairs)} and other characters. An open bracket weighs {told}. Write a Python "
        "function that returns the largest total weight of brackets that are open at one time, or -1 if the brackets do not match.",
        source, [(text(),) for _ in range(14)] + [("",), (pairs[0][0],)], ("max(best, total)", "total"),
    )  # fmt: skip


def _arithmetic(rng: random.Random) -> Exercise:
    order = rng.sample("+-*", 3)
    modulus = rng.randint(100, 9999)
    source = f"""
        def solve(s):
            def level(tokens, k):
                if k == 3:
                    return int(tokens[0])
                parts, signs = [[]], []
                for t in tokens:
                    if t == {"".join(order)!r}[k]:
                        signs.append(t)
                        parts.append([])
                    else:
                        parts[-1].append(t)
                value = level(parts[0], k + 1)
                for part in parts[1:]:
                    other = level(part, k + 1)
                    value = {{'+': value + other, '-': value - other, '*': value * other}}[signs[0]]
                return value
            return level(s.split(), 0) % {modulus}
        """

    def text() -> str:
        tokens = [str(rng.randint(1, 20))]
        for _ in range(rng.randint(1, 6)):
            tokens += [rng.choice("+-*"), str(rng.randint(1, 20))]
        return " ".join(tokens)

    return problem(
        KIND, 5, ("arithmetic", tuple(order), modulus),
        f"A string holds an expression of positive integers and the operators + - *, separated by single spaces. Here {order[2]!r} "
        f"binds tightest, then {order[1]!r}, and {order[0]!r} least; equal operators group from the left. Write a Python function "
        f"that returns its value modulo {modulus} (Python's remainder).",
        source, [(text(),) for _ in range(14)] + [("5",)], ("value - other", "other - value"),
    )  # fmt: skip
