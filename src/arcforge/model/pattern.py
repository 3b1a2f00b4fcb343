"""Which layers keep their full attention: a beam search over patterns (GLM-5 report, section 2.1.2, "SWA Pattern")."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

Score = Callable[[tuple[int, ...]], float]
"""Layers that are to be made cheaper, in order -> how good the model is then; higher is better."""


@dataclass(frozen=True)
class Pattern:
    """layers: those that are made cheaper, in order; score: of the model with them."""

    layers: tuple[int, ...]
    score: float

    def text(self, layers: int) -> str:
        """One letter a layer as in the report: S for a window, F for full attention."""
        return "".join("S" if layer in self.layers else "F" for layer in range(layers))


def search_pattern(
    layers: int, score: Score, cheaper: int | None = None, beam: int = 8, per_step: int = 2
) -> list[Pattern]:
    """The best patterns with `cheaper` of `layers` layers made cheaper (half of them by default), best first.

    Each step adds `per_step` layers (the last one what is left) to every pattern of the beam in all ways and keeps the `beam`
    best of those; each set of layers is scored once. Equal scores keep the order of layers, so the result is reproducible.
    ValueError when a number makes no sense.
    """
    wanted = layers // 2 if cheaper is None else cheaper
    if not 0 <= wanted <= layers or beam < 1 or per_step < 1:
        raise ValueError(
            f"{wanted} of {layers} layers with a beam of {beam} and {per_step} per step cannot be searched"
        )
    best = [Pattern((), float("nan"))]
    while len(best[0].layers) < wanted:
        added = min(per_step, wanted - len(best[0].layers))
        candidates = {
            tuple(sorted((*pattern.layers, *more)))
            for pattern in best
            for more in combinations([layer for layer in range(layers) if layer not in pattern.layers], added)
        }
        scored = [Pattern(candidate, score(candidate)) for candidate in sorted(candidates)]
        best = sorted(scored, key=lambda pattern: -pattern.score)[:beam]
    return best
