"""A consistent-hash ring: every key has the nodes in an order of its own, and a change of nodes moves only their share."""

from __future__ import annotations

from bisect import bisect, insort
from collections.abc import Iterable, Iterator
from hashlib import blake2b

VIRTUAL_NODES = 160  # points of one node on the ring; a node's share of the keys then varies by about 8%


class HashRing:
    """Nodes are names. The order of a key is the same in every process: nothing depends on Python's own hashes."""

    def __init__(self, nodes: Iterable[str] = ()) -> None:
        self._points: list[tuple[int, str]] = []
        self._nodes: set[str] = set()
        for node in nodes:
            self.add(node)

    def add(self, node: str) -> None:
        if node not in self._nodes:
            self._nodes.add(node)
            for i in range(VIRTUAL_NODES):
                insort(self._points, (_place(f"{node}#{i}"), node))

    def remove(self, node: str) -> None:
        self._nodes.discard(node)
        self._points = [point for point in self._points if point[1] != node]

    def order(self, key: str) -> Iterator[str]:
        """Every node once, as a walk around the ring from the key's place meets them. The first one is the key's own."""
        start, count, met = bisect(self._points, (_place(key), "")), len(self._points), set()
        for step in range(count):
            node = self._points[(start + step) % count][1]
            if node not in met:
                met.add(node)
                yield node
                if len(met) == len(self._nodes):
                    return


def _place(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())
