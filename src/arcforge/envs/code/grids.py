"""grids: weighted sums, turns, neighbours, regions and shortest ways in rectangles of small integers."""

from __future__ import annotations

import random

from arcforge.envs.code.problem import problem
from arcforge.envs.levelled import Exercise

KIND = "grids"
TOLD = "A grid is a list of rows of equal length, each a list of integers."


def make(rng: random.Random, level: int) -> Exercise:
    return (_sums, _turn, _neighbours, _regions, _way)[level - 1](rng)


def _grid(rng: random.Random, largest: int, least: int = 0) -> list[list[int]]:
    height, width = rng.randint(1, 6), rng.randint(1, 6)
    return [[rng.randint(least, largest) for _ in range(width)] for _ in range(height)]


def _sums(rng: random.Random) -> Exercise:
    n, a, b = rng.randint(2, 5), rng.randint(1, 9), rng.randint(1, 9)
    source = f"""
        def solve(g):
            return [sum({a} * x if x % {n} == 0 else {b} * x for x in row) for row in g]
        """
    return problem(
        KIND, 1, ("sums", n, a, b),
        f"{TOLD} Write a Python function that returns the list of the sums of the rows, in which numbers divisible by {n} count {a} "
        f"times and the others {b} times.",
        source, [(_grid(rng, 20),) for _ in range(10)], (f"sum({a} * x", f"sum({a + 1} * x"),
    )  # fmt: skip


def _turn(rng: random.Random) -> Exercise:
    times, flip, add = rng.randint(1, 3), rng.choice(("left to right", "top to bottom")), rng.randint(1, 99)
    flipped = "[row[::-1] for row in g]" if flip == "left to right" else "g[::-1]"
    source = f"""
        def solve(g):
            for _ in range({times}):
                g = [list(column)[::-1] for column in zip(*g)]
            g = {flipped}
            return [[x + {add} for x in row] for row in g]
        """
    return problem(
        KIND, 2, ("turn", times, flip, add),
        f"{TOLD} Write a Python function that turns the grid {times * 90} degrees clockwise, then mirrors it {flip}, adds {add} to every "
        "number and returns the new grid.",
        source, [(_grid(rng, 20),) for _ in range(10)], (f"range({times})", f"range({times + 2})"),
    )  # fmt: skip


def _neighbours(rng: random.Random) -> Exercise:
    born, kept = sorted(rng.sample(range(1, 6), 2)), sorted(rng.sample(range(6), 2))
    diagonal = rng.random() < 0.5
    condition = "(i, j) != (0, 0)" if diagonal else "abs(i) + abs(j) == 1"
    source = f"""
        def solve(g):
            h, w = len(g), len(g[0])
            def living(r, c):
                return sum(
                    g[r + i][c + j]
                    for i in (-1, 0, 1) for j in (-1, 0, 1)
                    if {condition} and 0 <= r + i < h and 0 <= c + j < w
                )
            return [
                [int(living(r, c) in ({kept} if g[r][c] else {born})) for c in range(w)]
                for r in range(h)
            ]
        """
    which = "eight neighbours, diagonals included" if diagonal else "four neighbours up, down, left and right"
    return problem(
        KIND, 3, ("neighbours", tuple(born), tuple(kept), diagonal),
        f"{TOLD} Here 1 is a living cell and 0 a dead one. A cell has the {which} (fewer at the edge). Write a Python function that "
        f"returns the next generation: a dead cell becomes living if it has {born[0]} or {born[1]} living neighbours, a living one stays "
        f"living if it has {kept[0]} or {kept[1]}; all others are dead.",
        source, [(_grid(rng, 1),) for _ in range(14)], (f"({kept} if", f"({born} if"),
    )  # fmt: skip


def _regions(rng: random.Random) -> Exercise:
    least, values = rng.randint(1, 3), rng.randint(2, 4)
    power, modulus = rng.randint(1, 3), rng.randint(50, 999)
    source = f"""
        def solve(g):
            h, w = len(g), len(g[0])
            seen, total = set(), 0
            for start in [(r, c) for r in range(h) for c in range(w)]:
                if start in seen:
                    continue
                value, todo, size = g[start[0]][start[1]], [start], 0
                seen.add(start)
                while todo:
                    r, c = todo.pop()
                    size += 1
                    for a, b in ((r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)):
                        if 0 <= a < h and 0 <= b < w and (a, b) not in seen and g[a][b] == value:
                            seen.add((a, b))
                            todo.append((a, b))
                if size >= {least}:
                    total += value * size ** {power}
            return total % {modulus}
        """
    return problem(
        KIND, 4, ("regions", least, power, modulus, values),
        f"{TOLD} A region is a largest set of cells of one value that are connected up, down, left and right. Write a Python function "
        f"that adds up, over the regions of at least {least} cells, the value times the size to the power {power}, and returns this "
        f"modulo {modulus}.",
        source, [(_grid(rng, values, 1),) for _ in range(14)], (f"size ** {power}", "1"),
    )  # fmt: skip


def _way(rng: random.Random) -> Exercise:
    wall, up = rng.randint(6, 9), rng.randint(1, 9)
    per_step = rng.randint(1, 9)
    source = f"""
        import heapq
        def solve(g):
            h, w = len(g), len(g[0])
            if g[0][0] >= {wall} or g[-1][-1] >= {wall}:
                return -1
            best, todo = {{(0, 0): 0}}, [(0, 0, 0)]
            while todo:
                cost, r, c = heapq.heappop(todo)
                if (r, c) == (h - 1, w - 1):
                    return cost
                if cost > best[r, c]:
                    continue
                for a, b in ((r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)):
                    if 0 <= a < h and 0 <= b < w and g[a][b] < {wall}:
                        new = cost + {per_step} + {up} * max(0, g[a][b] - g[r][c])
                        if new < best.get((a, b), new + 1):
                            best[a, b] = new
                            heapq.heappush(todo, (new, a, b))
            return -1
        """
    return problem(
        KIND, 5, ("way", wall, up, per_step),
        f"{TOLD} The numbers are heights; cells of height {wall} or more cannot be entered. A step up, down, left or right in the grid "
        f"costs {per_step}, and {up} more for each unit of height it climbs. Write a Python function that returns the smallest cost from the "
        "first cell of the first row to the last cell of the last row, or -1 if there is no way.",
        source, [(_grid(rng, wall),) for _ in range(16)] + [([[0, 1, 2], [1, 3, 2], [0, 1, 1]],)], (f"{up} * max", f"{up + 1} * max"),
    )  # fmt: skip
