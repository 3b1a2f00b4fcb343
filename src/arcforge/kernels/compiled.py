"""Loops that Numba compiles for the CPU, for inference in float32: where a request adds a row or a few, calling an operator costs
more than its arithmetic, and paged rows would have to be copied together before PyTorch's products take them.

Compiled once per machine: the machine code lies beside the source (or where NUMBA_CACHE_DIR says). One thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

Loop = TypeVar("Loop", bound=Callable[..., Any])
OPTIONS: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"reassoc", "contract", "arcp", "nsz"},
}
"""Sums may be taken in any order, as vectors need; numbers that are not finite stay what they are."""


def compiled(function: Loop) -> Loop:
    """`function` as machine code, compiled when it is first called."""
    try:
        return numba.njit(cache=True, **OPTIONS)(function)  # type: ignore[return-value]
    except RuntimeError:  # no folder to keep the code in
        return numba.njit(**OPTIONS)(function)  # type: ignore[return-value]
