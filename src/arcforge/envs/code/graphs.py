"""graphs: degrees, reachability, connected components, cheapest ways, orders of work."""

from __future__ import annotations

import random

from arcforge.envs.code.problem import problem
from arcforge.envs.levelled import Exercise

KIND = "graphs"
Edges = list[tuple[int, int]]


def make(rng: random.Random, level: int) -> Exercise:
    return (_degrees, _reach, _components, _cheapest, _orders)[level - 1](rng)


def _edges(rng: random.Random, n: int) -> Edges:
    pairs = [(a, b) for a in range(n) for b in range(n) if a != b]
    return rng.sample(pairs, rng.randint(1, min(len(pairs), 2 * n)))


def _degrees(rng: random.Random) -> Exercise:
    out, into, n = rng.randint(1, 9), rng.randint(1, 9), rng.randint(0, 3)
    source = f"""
        def solve(n, edges):
            score = [0] * n
            for a, b in edges:
                score[a] += {out}
                score[b] -= {into}
            return sorted(i for i in range(n) if score[i] > {n})
        """
    return problem(
        KIND, 1, ("degrees", out, into, n),
        f"A directed graph has the nodes 0 to n - 1 and a list of edges (a, b). A node scores {out} for each edge that leaves it and loses "
        f"{into} for each that enters it. Write a Python function of n and the edges that returns the sorted list of nodes that score more than {n}.",
        source, [(size, _edges(rng, size)) for size in (rng.randint(2, 8) for _ in range(12))], ("score[b] -=", "score[b] +="),
    )  # fmt: skip


def _reach(rng: random.Random) -> Exercise:
    most, n = rng.randint(1, 5), rng.randint(2, 12)
    modulo = rng.randrange(n)
    source = f"""
        def solve(n, edges):
            reached = now = {{0}}
            for _ in range({most}):
                now = {{b for a, b in edges if a in now}}
                reached = reached | now
            return sum(1 for i in reached if i % {n} == {modulo})
        """
    return problem(
        KIND, 2, ("reach", most, n, modulo),
        f"A directed graph has the nodes 0 to n - 1 and a list of edges (a, b). Write a Python function of n and the edges that counts the nodes "
        f"i with i % {n} == {modulo} that can be reached from node 0 along at most {most} edges; node 0 itself is reached.",
        source, [(size, _edges(rng, size)) for size in (rng.randint(2, 10) for _ in range(14))], (f"range({most})", f"range({most - 1})"),
    )  # fmt: skip


def _components(rng: random.Random) -> Exercise:
    least, a, b = rng.randint(1, 3), rng.randint(1, 9), rng.randint(0, 9)
    source = f"""
        def solve(n, edges):
            parent = list(range(n))
            def find(x):
                while parent[x] != x:
                    x = parent[x]
                return x
            for x, y in edges:
                parent[find(x)] = find(y)
            sizes = {{}}
            for x in range(n):
                sizes[find(x)] = sizes.get(find(x), 0) + 1
            return sorted({a} * s + {b} for s in sizes.values() if s >= {least})
        """

    def call() -> tuple[int, Edges]:
        n = rng.randint(2, 10)
        return n, _edges(rng, n)[: rng.randint(1, n)]

    return problem(
        KIND, 3, ("components", least, a, b),
        f"An undirected graph has the nodes 0 to n - 1 and a list of edges. Write a Python function of n and the edges that returns, for the "
        f"connected components of at least {least} nodes, the sorted list of {a} times their size plus {b}.",
        source, [call() for _ in range(14)], (f"{a} * s", f"{a + 1} * s"),
    )  # fmt: skip


def _cheapest(rng: random.Random) -> Exercise:
    toll, free = rng.randint(1, 60), rng.randint(2, 5)
    source = f"""
        def solve(n, edges):
            best = {{(0, 0): 0}}
            todo = [(0, 0)]
            while todo:
                node, steps = min(todo, key=best.get)
                todo.remove((node, steps))
                for a, b, cost in edges:
                    if a == node:
                        new = (b, (steps + 1) % {free})
                        total = best[node, steps] + cost + ({toll} if new[1] == 0 else 0)
                        if total < best.get(new, total + 1):
                            best[new] = total
                            if new not in todo:
                                todo.append(new)
            return min([best[n - 1, k] for k in range({free}) if (n - 1, k) in best], default=-1)
        """

    def call() -> tuple[int, list[tuple[int, int, int]]]:
        n = rng.randint(2, 7)
        return n, [(a, b, rng.randint(1, 9)) for a, b in _edges(rng, n)]

    return problem(
        KIND, 4, ("cheapest", toll, free),
        f"A directed graph has the nodes 0 to n - 1 and a list of edges (a, b, cost). On every way, each {free}th edge (the {free}th, the "
        f"{2 * free}th and so on) costs {toll} more. Write a Python function of n and the edges that returns the smallest cost of a way from "
        "node 0 to node n - 1, or -1 if there is none.",
        source, [call() for _ in range(16)], (f"({toll} if", f"({toll + 1} if"),
    )  # fmt: skip


def _orders(rng: random.Random) -> Exercise:
    gap, base = rng.randint(1, 3), rng.randint(1, 9)
    workers = rng.randint(1, 4)
    source = f"""
        def solve(times, edges):
            n = len(times)
            before = {{i: {{a for a, b in edges if b == i}} for i in range(n)}}
            done, free = {{}}, [{base}] * {workers}
            for _ in range(n):
                ready = [i for i in range(n) if i not in done and before[i] <= done.keys()]
                if not ready:
                    return -1
                i = ready[0]
                start = max([min(free), *(done[a] + {gap} for a in before[i])])
                free.remove(min(free))
                done[i] = start + times[i]
                free.append(done[i])
            return max(done.values(), default=0)
        """

    def call() -> tuple[list[int], Edges]:
        n = rng.randint(1, 7)
        edges = _edges(rng, n) if n > 1 else []
        forward = [(min(a, b), max(a, b)) for a, b in edges] if rng.random() < 0.8 else edges
        return [rng.randint(1, 9) for _ in range(n)], sorted(set(forward))

    return problem(
        KIND, 5, ("orders", gap, base, workers),
        f"Jobs 0 to n - 1 take the given times; an edge (a, b) says that b may start only {gap} after a has ended. {workers} workers are free "
        f"from time {base} on. Again and again the job with the smallest number whose predecessors have all been assigned is assigned to the "
        "worker who is free first; it starts as soon as that worker is free and its predecessors allow it, and the worker is busy until it ends. "
        "Write a Python function of the list of times and the list of edges that returns the time when the last job ends, or -1 if some job "
        "can never be assigned.",
        source, [call() for _ in range(16)], (f"done[a] + {gap}", f"done[a] + {gap + 1}"),
    )  # fmt: skip
