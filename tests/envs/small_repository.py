"""A small real project with a history, for tests of the environment builder."""

import subprocess
import sys
from pathlib import Path

from arcforge.envs.swe.builder.interpreter import Interpreter

# Plugins of the interpreter that runs these tests; loading them takes longer than the small suites do.
PLUGINS = ("schemathesis", "hypothesispytest", "anyio", "xdist", "xdist.looponfail", "asyncio", "benchmark", "cov")
QUICK = tuple(part for name in PLUGINS for part in ("-p", f"no:{name}"))

PRICES = '''"""Prices."""


def total(prices, tax=0):
    """Sum with tax in percent."""
    if not prices:
        raise ValueError("no prices")
    return sum(prices) * (100 + tax) / 100


def cheapest(prices, count=1):
    return sorted(prices)[: count - 1]
'''
TEXT = """def shorten(text, width):
    if len(text) <= width:
        return text
    return text[: width - 3] + "..."


def number(text, fallback=None):
    try:
        return int(text)
    except ValueError:
        return fallback
"""
TEST_PRICES = """import pytest

from shop import prices


def test_total():
    assert prices.total([1, 2]) == 3


def test_tax():
    assert prices.total([100], tax=7) == 107


def test_no_prices():
    with pytest.raises(ValueError):
        prices.total([])
"""
TEST_TEXT = '''import pytest

from shop.text import number, shorten


@pytest.mark.parametrize(("text", "short"), [("a b - c", "a b - c"), ("a longer text", "a lo...")])
def test_shorten(text, short):
    """Long texts end with dots."""
    assert shorten(text, 7) == short


def test_number():
    assert number("7") == 7
    assert number("x", 0) == 0
'''
CHEAPEST = """

@pytest.mark.parametrize("count", [1, 2], ids=["only one", "two of them"])
def test_cheapest(count):
    assert prices.cheapest([3, 1, 2], count) == [1, 2][:count]
"""
DISCOUNT = """

def discount(price, percent):
    return price * (100 - percent) / 100
"""
TEST_DISCOUNT = """

def test_discount():
    assert prices.discount(200, 50) == 100
"""
TEST_LONG = """

def test_short_enough():
    assert shorten("abc", 3) == "abc"
"""


def git(root, *arguments):
    names = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *names, *arguments], cwd=root, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(root, message, files):
    for path, text in files.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "-m", message)
    return git(root, "rev-parse", "HEAD")


def small_repository(root):
    """A repository whose commits fall to different rules; name -> sha."""
    root.mkdir(parents=True)
    git(root, "init", "--quiet", "--initial-branch=main")
    fixed = PRICES.replace("[: count - 1]", "[:count]")
    spaced = TEXT.replace('text[: width - 3] + "..."', 'text[: width - len("...")] + "..."')
    start = {"shop/__init__.py": "", "shop/prices.py": PRICES, "shop/text.py": TEXT}
    tests = {"tests/test_prices.py": TEST_PRICES, "tests/test_text.py": TEST_TEXT}
    return {
        "start": commit(root, "Start the shop", start | tests),
        "documented": commit(root, "Explain how to use it", {"README.md": "A shop.\n", "docs/use.md": "Use it.\n"}),
        "fixed": commit(
            root,
            "Fix cheapest returning one price too few (#12)\n\nThe slice ended too early.\n\nSigned-off-by: a",
            {"shop/prices.py": fixed, "tests/test_prices.py": TEST_PRICES + CHEAPEST, "README.md": "The shop.\n"},
        ),
        "unnoticed": commit(
            root,
            "Simplify how texts are shortened",
            {"shop/text.py": spaced, "tests/test_text.py": TEST_TEXT + TEST_LONG},
        ),
        "feature": commit(
            root,
            "Add a discount in percent",
            {"shop/prices.py": fixed + DISCOUNT, "tests/test_prices.py": TEST_PRICES + CHEAPEST + TEST_DISCOUNT},
        ),
        "vague": commit(root, "wip", {"shop/text.py": TEXT, "tests/test_text.py": TEST_TEXT}),
    }


def this_interpreter():
    return Interpreter(Path(sys.executable), "3.11.0", ("pytest==0",), options=QUICK)
