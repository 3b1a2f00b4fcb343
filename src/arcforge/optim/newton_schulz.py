"""Orthogonalisation by Newton-Schulz iteration, batched over equal shapes."""

from __future__ import annotations

from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEPS = 5


def orthogonalise(g_NRC: Tensor) -> Tensor:
    """Five quintic Newton-Schulz steps on each [R, C] matrix of a batch: singular values end near 1 (GLM-4.5 report, 2.4)."""
    a, b, c = COEFFICIENTS
    tall = g_NRC.shape[-2] > g_NRC.shape[-1]
    x = g_NRC.transpose(-1, -2) if tall else g_NRC
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(STEPS):
        gram = x @ x.transpose(-1, -2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.transpose(-1, -2) if tall else x
