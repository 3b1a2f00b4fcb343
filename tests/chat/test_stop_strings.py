"""Stop strings: the shown text does not depend on how the text is cut, and nothing of a stop string is shown."""

import time
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arcforge.chat.stop_strings import StopStrings


def fed(strings, pieces) -> tuple[str, str]:
    """(all that was shown, the string that stopped it)."""
    stops, shown = StopStrings(strings), ""
    for piece in pieces:
        now, stopped = stops.feed(piece)
        shown += now
        assert stopped == bool(stops.matched)
    return shown + stops.rest(), stops.matched


def plainly(strings, text) -> tuple[str, str]:
    """The definition: look at every beginning of the text until it ends with a stop string."""
    for end in range(1, len(text) + 1):
        matched = max((s for s in strings if text[:end].endswith(s)), key=len, default="")
        if matched:
            return text[: end - len(matched)], matched
    return text, ""


@pytest.mark.parametrize(
    "strings, text, shown, matched",
    [
        ((), "any text", "any text", ""),
        (("END",), "some text END more", "some text ", "END"),
        (("END",), "EN", "EN", ""),
        (("END",), "ENEND", "EN", "END"),
        (("aab",), "aaab", "a", "aab"),
        (("aaab",), "aaacab", "aaacab", ""),
        (("\n\n", "###"), "a\nb##c\n\nd###", "a\nb##c", "\n\n"),
        (("abcd", "bc"), "abcd", "a", "bc"),
        (("b", "ab"), "ab", "", "ab"),
        (("ab", "abc"), "abc", "", "ab"),
        (("née",), "élan née", "élan ", "née"),
        (("x",), "", "", ""),
    ],
)
def test_cut_anywhere(strings, text: str, shown: str, matched: str) -> None:
    for cuts in (c for n in (0, 1, 2) for c in combinations(range(len(text) + 1), n)):
        bounds = [0, *cuts, len(text)]
        pieces = [text[a:b] for a, b in zip(bounds, bounds[1:])]
        assert fed(strings, pieces) == (shown, matched), pieces
    assert fed(strings, text) == (shown, matched)


@given(
    strings=st.lists(st.text("ab", min_size=1, max_size=5), max_size=4),
    pieces=st.lists(st.text("abc", max_size=6), max_size=12),
)
def test_like_the_definition(strings: list[str], pieces: list[str]) -> None:
    assert fed(strings, pieces) == plainly(strings, "".join(pieces))


def test_only_what_may_begin_a_stop_string_is_held_back() -> None:
    stops = StopStrings(("</answer>", "\n\n"))
    assert stops.feed("it is 4 <") == ("it is 4 ", False)
    assert stops.feed("/b>\n") == ("</b>", False)
    assert stops.feed("5") == ("\n5", False)
    assert stops.feed("</answer>...") == ("", True) and stops.matched == "</answer>"
    assert stops.feed("more") == ("", True) and stops.rest() == ""


def test_an_empty_string_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        StopStrings(("a", ""))


def test_long_strings_cost_no_more() -> None:
    started = time.process_time()
    assert fed(("a" * 20_000 + "b", "a" * 20_000 + "c"), ["a"] * 60_000)[0] == "a" * 60_000
    assert time.process_time() - started < 20
