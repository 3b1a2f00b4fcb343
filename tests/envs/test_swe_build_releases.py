"""Releases of a package index as a repository: a real index on loopback, real archives."""

import hashlib
import io
import json
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from small_repository import CHEAPEST, DISCOUNT, PRICES, TEST_DISCOUNT, TEST_PRICES, this_interpreter
from typer.testing import CliRunner

from arcforge.cli.main import app
from arcforge.core.errors import UserError
from arcforge.envs.swe.builder.archives import Release
from arcforge.envs.swe.builder.checkouts import ProcessCheckouts
from arcforge.envs.swe.builder.clone import Clone
from arcforge.envs.swe.builder.factory import BuildSettings, build_repository
from arcforge.envs.swe.builder.manifest import read_shard
from arcforge.envs.swe.builder.pypi import PackageIndex
from arcforge.envs.swe.builder.rebuild import build, validate_rows
from arcforge.envs.swe.builder.releases import assemble
from arcforge.envs.swe.builder.source_text import functions_taken_back, same_code
from arcforge.envs.swe.builder.suite import Suite

FIXED = PRICES.replace("[: count - 1]", "[:count]").replace("no prices", "nothing to add")
FIRST = {"shop/__init__.py": "", "shop/prices.py": PRICES, "tests/test_prices.py": TEST_PRICES, "CHANGES.md": "# 1.0\n"}
SECOND = FIRST | {
    "shop/prices.py": FIXED + DISCOUNT,
    "shop/__init__.py": '__version__ = "1.1"\n',
    "tests/test_prices.py": TEST_PRICES + CHEAPEST + TEST_DISCOUNT,
    "CHANGES.md": "# 1.1\n- cheapest() no longer forgets one\n# 1.0\n",
}
NEWER = {"shop/prices.py": "x = 1\n"}


def archive(root, files):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        for path, text in {**files, "PKG-INFO": f"Name: {root}", "shop.egg-info/SOURCES.txt": "x"}.items():
            entry = tarfile.TarInfo(f"{root}/{path}")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return raw.getvalue()


@pytest.fixture
def index(tmp_path):
    """A package index with two releases of a shop and four archives that are none; (address, its folder)."""
    place = tmp_path / "index"
    (place / "simple/the-shop").mkdir(parents=True)
    rows = []
    for number, (name, files, more) in enumerate(
        [
            ("the_shop-1.10.tar.gz", NEWER, {"requires-python": ">=3.99"}),
            ("the_shop-1.1.tar.gz", SECOND, {"requires-python": ">=3.8"}),
            ("the_shop-1.0.tar.gz", FIRST, {}),
            ("the_shop-2.0rc1.tar.gz", NEWER, {}),
            ("the_shop-0.9.tar.gz", NEWER, {"yanked": "broken"}),
            ("the_shop-1.2-py3-none-any.whl", NEWER, {}),
        ]
    ):
        raw = archive(name.removesuffix(".tar.gz"), files)
        (place / name).write_bytes(raw)
        row = {"filename": name, "url": "", "hashes": {"sha256": hashlib.sha256(raw).hexdigest()}, "size": len(raw)}
        rows.append(row | {"upload-time": f"2020-01-0{number + 1}T00:00:00.5Z"} | more)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(place)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    for row in rows:
        row["url"] = f"{address}/{row['filename']}"
    (place / "simple/the-shop/index.html").write_text(json.dumps({"files": rows}))
    yield f"{address}/simple", place
    server.shutdown()
    thread.join()
    server.server_close()


def test_releases_are_a_history_and_the_same_on_every_machine(index, tmp_path):
    address, _ = index
    index = PackageIndex(address, "3.11")
    found = index.releases("The.Shop", 10)
    assert [release.version for release in found] == [
        "1.0",
        "1.1",
    ]  # no wheel, no candidate, not withdrawn, of this Python
    clone = Clone(assemble(index, "The.Shop", found, tmp_path / "one"))
    assert clone.head() == Clone(assemble(index, "The.Shop", found, tmp_path / "two")).head()
    assert clone.paths(clone.head()) == sorted(SECOND) and clone.version(clone.head()) == "1.1"
    assert [release.version for release in index.releases("the_shop", 1)] == ["1.1"]
    assert [release.version for release in index.releases("the_shop", 1, "1.0")] == ["1.0"]
    with pytest.raises(UserError, match="no release 0"):
        index.releases("the_shop", 1, "0.7")


def test_an_equally_long_file_of_the_same_time_is_the_new_one(tmp_path):
    """As of archives that give all files one time: within a second nothing but their contents tells such files apart."""

    raws = {str(n): archive("shop", {"version.py": f"version = {n}\n"}) for n in range(10, 22)}

    class Same:
        def archive(self, project, release):
            return raws[release.version]

        def strip(self, root):
            pass

    made = [
        Release(version=version, file="f", sha256=hashlib.sha256(raw).hexdigest(), time=10**9 + number)
        for number, (version, raw) in enumerate(raws.items())
    ]
    clone = Clone(assemble(Same(), "shop", made, tmp_path / "clone"))
    told = [clone.text(commit.sha, "version.py") for commit in clone.commits(20)]
    assert told == [f"version = {n}\n" for n in range(21, 10, -1)]


def test_what_the_index_does_not_have_or_has_changed_is_told_in_one_line(index, tmp_path):
    address, place = index
    index = PackageIndex(address, "3.11")
    found = index.releases("the-shop", 10)
    with pytest.raises(UserError, match="HTTP 404"):
        index.releases("another-shop", 10)
    with pytest.raises(UserError, match="not the name of a project"):
        index.releases("../etc", 10)
    (place / found[0].file).write_bytes(archive("the_shop-1.0", NEWER))
    with pytest.raises(UserError, match="another archive than was measured"):
        assemble(index, "the-shop", found, tmp_path / "clone")
    (place / "simple/the-shop/index.html").write_text("<html>")
    with pytest.raises(UserError, match="PEP 691"):
        index.releases("the-shop", 10)


def test_what_a_release_changes_in_one_file_is_an_environment(index, tmp_path):
    address, _ = index
    index = PackageIndex(address, "3.11")
    found = index.releases("the-shop", 10)
    clone = assemble(index, "the-shop", found, tmp_path / "clone")
    account = build_repository(
        clone, "pypi/the-shop", tmp_path / "out", BuildSettings(bugs=0, seconds=30), this_interpreter(),
        ProcessCheckouts(), releases=found,
    )  # fmt: skip
    assert account.outcomes == {"part": {"valid": 2, "no_code": 1, "no_fail_to_pass": 1}}
    environment, rows = read_shard(tmp_path / "out/manifest", "pypi/the-shop")
    one, row = sorted(rows, key=lambda row: row.function or "", reverse=True)
    assert environment.releases == tuple(found) and (row.source, row.part) == ("part", "shop/prices.py")
    assert one.function == "cheapest" and len(one.fail_to_pass) == 2 and one.pass_to_pass == 4 and not row.function
    built = build(one, Clone(clone), tmp_path / "one")
    assert "discount" in (text := (built.directory / "shop/prices.py").read_text()) and "[: count - 1]" in text
    assert (
        set(row.fail_to_pass)
        == {
            "tests/test_prices.py::test_cheapest[only one]",
            "tests/test_prices.py::test_cheapest[two of them]",
            "tests/test_prices.py::test_discount",
        }
        and row.pass_to_pass == 3
    )
    built = build(row, Clone(clone), tmp_path / "built")
    assert (built.directory / "shop/prices.py").read_text() == PRICES and not built.hidden
    assert (built.directory / "shop/__init__.py").read_text() == SECOND["shop/__init__.py"]
    assert "cheapest() no longer forgets one" in built.statement and "3 tests that should pass" in built.statement
    words = [
        "--name",
        "pypi/the-shop",
        "--manifest",
        tmp_path / "out/manifest",
        "--out",
        tmp_path / "cli",
        "--index",
        address,
    ]
    done = CliRunner().invoke(app, ["env", "build", *map(str, words)])
    assert done.exit_code == 0 and "2 of 2 environments" in done.output, done.output
    texts = {path.read_text() for path in (tmp_path / "cli").glob("*/repository/shop/prices.py")}
    assert texts == {PRICES, text}
    again = Suite(
        Clone(assemble(index, "the-shop", environment.releases, tmp_path / "again")),
        this_interpreter(),
        ProcessCheckouts(),
        30,
    )
    assert validate_rows(rows, again).share == 1


def test_rows_of_a_history_that_is_no_more_stay_out_of_the_shard(index, tmp_path):
    index = PackageIndex(index[0], "3.11")
    found = index.releases("the-shop", 10)
    for held, valid in ((found, 2), (found[1:], 0)):
        clone = assemble(index, "the-shop", held, tmp_path / "clone")
        settings = BuildSettings(bugs=0, seconds=30)
        build_repository(
            clone, "pypi/the-shop", tmp_path / "out", settings, this_interpreter(), ProcessCheckouts(), releases=held
        )
        assert len(read_shard(tmp_path / "out/manifest", "pypi/the-shop")[1]) == valid


OLD = """
class A:
    @property
    def x(self):
        return 1

    def y(self): return 1

def z(): pass
def gone(): pass
"""
NEW = """
import os
class A:
    @property
    def x(self):
        'One.'
        return 2
    def y(self): return 1  # so
def new(): pass
"""


def test_functions_are_as_they_were_where_their_code_changed():
    assert functions_taken_back(OLD, NEW) == {
        "A.x": NEW.replace("        'One.'\n        return 2\n", "        return 1\n")
    }
    assert functions_taken_back(OLD, "def (") == {}


ADDED = '''
class B:
	@cached
	def made(
		self, a,  # first
	) -> int:
		"""Said.

		At length."""
		# how
		b = a
		c = b
		return c

def so():
    # how

    @wraps
    def inner(): pass
    return inner

def short(): a = 1; b = 2; return 3

def long(): return [
    1,
]
'''


def test_new_functions_lose_their_bodies_and_keep_what_is_said_of_them():
    found = functions_taken_back("", ADDED)
    assert set(found) == {"B.made", "so"}
    made = found["B.made"]
    assert made.startswith(ADDED[: ADDED.index("\t\t# how")]) and "b = a" not in made and "# how\n\t" not in made
    with pytest.raises(NotImplementedError):
        names = {"cached": lambda function: function}
        exec(made, names)
        names["B"]().made(1)
    assert "def so():\n    raise NotImplementedError\n\ndef short()" in found["so"]


def test_documentation_annotations_and_versions_are_no_code():
    said = '"""Said."""\nVERSION = (1, 2)\ndef f(x: int) -> int:\n    "Why."\n    return x  # so\n'
    assert same_code(said, "VERSION = (1, 3)\ndef f(x):\n    return x\n")
    assert not same_code(said, said.replace("return x", "return -x")) and not same_code("def", "def")
