"""dynamic: problems whose parts repeat: stairs, coins, subsequences, knapsacks, edit distances."""

from __future__ import annotations

import random

from arcforge.envs.code.problem import problem
from arcforge.envs.levelled import Exercise

KIND = "dynamic"


def make(rng: random.Random, level: int) -> Exercise:
    return (_stairs, _coins, _subsequence, _knapsack, _edits)[level - 1](rng)


def _stairs(rng: random.Random) -> Exercise:
    steps = sorted(rng.sample(range(1, 7), rng.randint(2, 3)))
    modulus = rng.choice((101, 997, 1009, 9973))
    source = f"""
        def solve(n):
            ways = [1] + [0] * n
            for i in range(1, n + 1):
                ways[i] = sum(ways[i - k] for k in {steps} if k <= i) % {modulus}
            return ways[n]
        """
    return problem(
        KIND, 1, ("stairs", tuple(steps), modulus),
        f"A staircase has n steps. One can climb {', '.join(map(str, steps[:-1]))} or {steps[-1]} steps at a time. Write a Python function "
        f"of n that returns in how many ways, order counting, one can climb all of it, modulo {modulus}.",
        source, [(n,) for n in rng.sample(range(4, 80), 10)] + [(0,), (1,)], ("k <= i", "k < i"),
    )  # fmt: skip


def _coins(rng: random.Random) -> Exercise:
    coins = sorted(rng.sample(range(2, 24), rng.randint(3, 4)))
    source = f"""
        def solve(n):
            best = [0] + [n + 1] * n
            for i in range(1, n + 1):
                for coin in {coins}:
                    if coin <= i:
                        best[i] = min(best[i], best[i - coin] + 1)
            return best[n] if best[n] <= n else -1
        """
    return problem(
        KIND, 2, ("coins", tuple(coins)),
        f"There are coins of {', '.join(map(str, coins))}, as many as one likes. Write a Python function of an amount n that returns the "
        "smallest number of coins that make n, or -1 if none do.",
        source, [(n,) for n in rng.sample(range(1, 150), 14)] + [(0,)], ("[i - coin] + 1", "[i - coin] + 2"),
    )  # fmt: skip


def _subsequence(rng: random.Random) -> Exercise:
    least = rng.randint(0, 9)
    most = least + rng.randint(1, 20)
    source = f"""
        def solve(a):
            best = []
            for i, x in enumerate(a):
                best.append(1 + max([best[j] for j in range(i) if {least} <= x - a[j] <= {most}], default=0))
            return max(best, default=0)
        """
    return problem(
        KIND, 3, ("subsequence", least, most),
        f"Write a Python function of a list of integers that returns the length of the longest subsequence (not necessarily of neighbours) "
        f"in which each number is at least {least} and at most {most} greater than the one before it. Of an empty list it is 0.",
        source, [([rng.randint(0, 30) for _ in range(rng.randint(2, 16))],) for _ in range(14)] + [([],)],
        (f"{least} <= x", f"{least + 1} <= x"),
    )  # fmt: skip


def _knapsack(rng: random.Random) -> Exercise:
    twice, bonus = rng.randint(1, 3), rng.randint(1, 60)
    source = f"""
        def solve(items, capacity):
            best = [0] * (capacity + 1)
            for weight, value in items:
                new = best[:]
                for c in range(capacity + 1):
                    for n in range(1, {twice} + 1):
                        if n * weight <= c:
                            gain = n * value + ({bonus} if n == {twice} else 0)
                            new[c] = max(new[c], best[c - n * weight] + gain)
                best = new
            return best[capacity]
        """

    def call() -> tuple[list[tuple[int, int]], int]:
        return [(rng.randint(1, 12), rng.randint(1, 30)) for _ in range(rng.randint(1, 6))], rng.randint(1, 30)

    return problem(
        KIND, 4, ("knapsack", twice, bonus),
        f"Each item is a pair of weight and value; of each at most {twice} may be taken, and taking all {twice} of one earns {bonus} on top of "
        "their values. Write a Python function of the list of items and the capacity that returns the largest total.",
        source, [call() for _ in range(14)] + [([], 5)], (f"({bonus} if", f"({bonus + 1} if"),
    )  # fmt: skip


def _edits(rng: random.Random) -> Exercise:
    insert, delete, change, swap = (rng.randint(1, 6) for _ in range(4))
    source = f"""
        def solve(a, b):
            d = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
            for i in range(len(a) + 1):
                for j in range(len(b) + 1):
                    ways = []
                    if i:
                        ways.append(d[i - 1][j] + {delete})
                    if j:
                        ways.append(d[i][j - 1] + {insert})
                    if i and j:
                        ways.append(d[i - 1][j - 1] + ({change} if a[i - 1] != b[j - 1] else 0))
                    if i > 1 and j > 1 and a[i - 2 : i] == b[j - 2 : j][::-1]:
                        ways.append(d[i - 2][j - 2] + {swap})
                    d[i][j] = min(ways, default=0)
            return d[-1][-1]
        """

    def word() -> str:
        return "".join(rng.choice("abc") for _ in range(rng.randint(0, 8)))

    return problem(
        KIND, 5, ("edits", insert, delete, change, swap),
        f"Inserting a letter costs {insert}, deleting one {delete}, changing one into another {change}, and exchanging two neighbouring letters "
        f"that are in each other's place {swap} (they are not edited further). Write a Python function of strings a and b that returns the "
        "smallest cost of turning a into b.",
        source, [(word(), word()) for _ in range(16)] + [("ab", "ba"), ("", "abc")], (f"[j] + {delete})", f"[j] + {delete + 1})"),
    )  # fmt: skip
