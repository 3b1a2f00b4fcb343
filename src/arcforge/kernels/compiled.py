"""Loops that Numba compiles for the CPU, for inference in float32: where a request adds a row or a few, calling an operator costs
more than its arithmetic, and paged rows would have to be copied together before PyTorch's products take them.

Compiled once per machine: the machine code lies beside the source (or where NUMBA_CACHE_DIR says). A loop runs in one thread
(`compiled`) or in all threads of PyTorch's own OpenMP team (`for_team`, `in_team`): that team's threads spin between
operators, so that threads of a second pool would wait for the cores.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, TypeVar

import llvmlite.binding
import numba
import torch
from numba import types
from torch import Tensor

Loop = TypeVar("Loop", bound=Callable[..., Any])
OPTIONS: dict[str, Any] = {"error_model": "numpy", "fastmath": {"reassoc", "contract", "arcp", "nsz"}}
"""Sums may be taken in any order, as vectors need; numbers that are not finite stay what they are."""


def compiled(function: Loop) -> Loop:
    """`function` as machine code, compiled when it is first called. It is compiled anew for another layout of an array, and may
    round otherwise then."""
    return _cached(numba.njit, nogil=True, **OPTIONS)(function)


def for_team(function: Callable[[Any], None]) -> Any:
    """`function` of one argument, an array of addresses, as what `in_team` runs. It asks `thread()` and `threads()` for its part of
    the work."""
    return _cached(numba.cfunc, types.void(types.CPointer(types.voidptr)), **OPTIONS)(function)


def _cached(make: Callable[..., Any], *signature: Any, **options: Any) -> Callable[[Any], Any]:
    def decorate(function: Any) -> Any:
        try:
            return make(*signature, cache=True, **options)(function)
        except RuntimeError:  # no folder to keep the code in
            return make(*signature, **options)(function)

    return decorate


def in_team(entry: Any, most: int, sizes: list[int], *tensors: Tensor) -> None:
    """Run `entry` in every thread of the team, at most `most`. It gets the addresses of the sizes (int64) and of the tensors, which
    must be contiguous and whose types it must know."""
    assert all(tensor.is_contiguous() for tensor in tensors)
    numbers = (ctypes.c_int64 * len(sizes))(*sizes)
    addresses = (ctypes.c_void_p * (len(tensors) + 1))(ctypes.addressof(numbers), *(t.data_ptr() for t in tensors))
    count = min(most, torch.get_num_threads())
    if _OPENMP is None or count <= 1:
        entry.ctypes(addresses)
    else:
        _OPENMP.GOMP_parallel(ctypes.c_void_p(entry.address), addresses, count, 0)


@numba.cfunc(types.int32())
def _zero():
    return 0


@numba.cfunc(types.int32())
def _one():
    return 1


def _openmp() -> ctypes.CDLL | None:
    """GNU's library, which PyTorch for Linux has loaded; None where there is another or none."""
    try:
        library = ctypes.CDLL("libgomp.so.1")
    except OSError:
        library = None
    for name, alone in (("omp_get_thread_num", _zero), ("omp_get_num_threads", _one)):
        address = alone.address if library is None else ctypes.cast(getattr(library, name), ctypes.c_void_p).value
        llvmlite.binding.add_symbol(name, address)
    return library


_OPENMP = _openmp()
carray: Any = numba.carray  # pyright: ignore[reportPrivateImportUsage]
"""The array of a given shape and type at an address."""
thread = types.ExternalFunction("omp_get_thread_num", types.int32())
threads = types.ExternalFunction("omp_get_num_threads", types.int32())
