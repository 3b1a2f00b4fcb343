"""MatrixSpec: what the optimizer must know about a parameter, told by the model so that no name is ever matched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Group = Literal["trunk", "indexer", "mtp", "reward"]


@dataclass(frozen=True)
class MatrixSpec:
    """How one parameter is to be optimised.

    kind: "matrix" (Muon), "expert" (a stack [experts, out, in], Muon per expert) or "vector" (AdamW: embeddings, norms,
    biases, router). row_slices: row ranges of one head each that are orthogonalised on their own (Muon Split, GLM-5
    report, section 2.1), empty for the whole matrix. group: "trunk" | "indexer" | "mtp" | "reward", for freezing and learning rates.
    """

    kind: Literal["matrix", "expert", "vector"]
    row_slices: tuple[tuple[int, int], ...] = ()
    group: Group = "trunk"
