"""Limits of this process."""

from __future__ import annotations

from contextlib import suppress


def raise_open_files() -> None:
    """As many open files as this user may have, where the system can say: every request in flight is a socket or two, and the
    usual limit of 1,024 ends at 500 of them."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
