"""Ctrl-C that a library swallowed or turned into another error."""

import asyncio
import os
import signal
import time

import pytest

from arcforge.core.interrupts import InterruptWatch


def press():
    os.kill(os.getpid(), signal.SIGINT)


def lost():
    with pytest.raises(KeyboardInterrupt):
        press()


def test_a_swallowed_interrupt_is_raised_by_the_next_check():
    with InterruptWatch() as watch:
        watch.check()
        lost()
        assert watch.interrupted
        with pytest.raises(KeyboardInterrupt):
            watch.check()


def test_another_error_after_an_interrupt_leaves_as_the_interrupt():
    with pytest.raises(KeyboardInterrupt) as caught, InterruptWatch():
        lost()
        raise ValueError("made of it by a library")
    assert isinstance(caught.value.__cause__, ValueError)


def test_an_interrupt_of_a_finalizer_is_raised_again_without_a_report(capfd):
    class Finalized:
        def __del__(self):
            press()

    ended = time.monotonic() + 30
    with pytest.raises(KeyboardInterrupt), InterruptWatch():
        Finalized()
        while time.monotonic() < ended:
            time.sleep(0.01)
    assert "Traceback" not in capfd.readouterr().err and time.monotonic() < ended


def test_other_errors_of_finalizers_are_reported_as_ever(monkeypatch):
    class Finalized:
        def __del__(self):
            raise ValueError("ours")

    reported = []
    monkeypatch.setattr("sys.unraisablehook", lambda error: reported.append(error.exc_type))
    with InterruptWatch():
        Finalized()
    assert reported == [ValueError]


def test_an_error_without_an_interrupt_stays_what_it_is():
    with pytest.raises(ValueError, match="ours"), InterruptWatch():
        raise ValueError("ours")
    with InterruptWatch() as second:
        second.check()


def test_asyncio_still_cancels_in_order_and_the_watch_knows():
    ended = []

    async def main():
        try:
            press()
            await asyncio.sleep(30)
        finally:
            ended.append("in order")

    with InterruptWatch() as watch:
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(main())
        assert ended == ["in order"] and watch.interrupted
