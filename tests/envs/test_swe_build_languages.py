"""Environments in languages other than Python: real small projects, releases from indexes on loopback."""

import hashlib
import io
import lzma
import shutil
import subprocess
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from arcforge.core.errors import UserError
from arcforge.core.protocols import ExecResult
from arcforge.envs.swe.builder.checkouts import OverlayCheckouts, ProcessCheckouts
from arcforge.envs.swe.builder.clone import Clone
from arcforge.envs.swe.builder.debian import DebianSources
from arcforge.envs.swe.builder.factory import BuildSettings, build_repository
from arcforge.envs.swe.builder.functions import functions_taken_back, same_code
from arcforge.envs.swe.builder.languages.debian_packages import rows_of
from arcforge.envs.swe.builder.languages.registry import INSTALLERS
from arcforge.envs.swe.builder.languages.scripted import Plan, Run, Scripted
from arcforge.envs.swe.builder.layout import LAYOUTS, language_of
from arcforge.envs.swe.builder.manifest import read_shard
from arcforge.envs.swe.builder.rebuild import build, restore, validate_rows
from arcforge.envs.swe.builder.rejection import Rejected
from arcforge.envs.swe.builder.releases import assemble
from arcforge.envs.swe.builder.suite import Suite
from arcforge.sandbox.host import bubblewrap_works

SHOP = "def total(prices)\n  prices.sum\nend\n\ndef cheapest(prices, count)\n  prices.sort.first(count - 1)\nend\n"
TESTS = "require 'minitest/autorun'\nrequire 'shop'\n\nclass TestShop < Minitest::Test\n%send\n"
TOTAL = "  def test_total = assert_equal(3, total([1, 2]))\n"
CHEAPEST = "  def test_cheapest = assert_equal([1, 2], cheapest([3, 2, 1], 2))\n"
RELEASES = {
    "1.9": {"lib/shop.rb": SHOP, "test/test_shop.rb": TESTS % TOTAL},
    "1.10": {"lib/shop.rb": SHOP.replace("count - 1", "count"), "test/test_shop.rb": TESTS % (TOTAL + CHEAPEST)},
}
LISTS = (
    "cmake_minimum_required(VERSION 3.5)\nproject(shop C)\nenable_testing()\nadd_executable(one test/one.c shop.c)\n"
    + ("add_executable(two test/two.c shop.c)\nadd_test(one one)\nadd_test(two two)\n")
)
MAIN = "int total(int, int);\nint main(void) { return total(%s) != 3; }\n"


def minitest():
    ruby = shutil.which("ruby")
    return ruby and not subprocess.run([ruby, "-e", "require 'minitest'"], check=False, capture_output=True).returncode


def installed(*packages):
    try:
        return bool(rows_of(packages))
    except UserError:
        return False


def archive(root, files):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        for path, text in files.items():
            entry = tarfile.TarInfo(f"{root}/{path}")
            entry.size, entry.mtime = len(text), 1_000_000_000
            tar.addfile(entry, io.BytesIO(text.encode()))
    return raw.getvalue()


@pytest.fixture
def mirror(tmp_path):
    """Debian's suites with two versions of ruby-shop, and one whose archive is gone."""
    place = tmp_path / "mirror"
    stanzas = {"bookworm": "1.9", "trixie": "1.10", "sid": "2.0"}
    (place / "pool/main/r/ruby-shop").mkdir(parents=True)
    for suite, version in stanzas.items():
        name = f"ruby-shop_{version}.orig.tar.gz"
        raw = archive(f"shop-{version}", RELEASES.get(version, {}))
        if version in RELEASES:
            (place / "pool/main/r/ruby-shop" / name).write_bytes(raw)
        text = f"Package: ruby-shop\nVersion: {version}-1\nChecksums-Sha256:\n {hashlib.sha256(raw).hexdigest()} {len(raw)} {name}\n"
        (place / f"dists/{suite}/main/source").mkdir(parents=True)
        (place / f"dists/{suite}/main/source/Sources.xz").write_bytes(lzma.compress(text.encode()))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(place)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_versions_of_a_source_package_are_a_history_in_the_order_of_their_numbers(mirror, tmp_path):
    source = DebianSources(mirror)
    found = source.releases("ruby-shop", 10)
    assert [release.version for release in found] == ["1.9", "1.10"]
    clone = Clone(assemble(source, "ruby-shop", found, tmp_path / "clone"))
    assert language_of(clone.paths("HEAD")) == "ruby" and clone.time("HEAD") == 1_000_000_000
    other = [found[0].model_copy(update={"version": "1:1.9~rc1"}), found[1]]
    assert len(Clone(assemble(source, "ruby-shop", other, tmp_path / "other")).shas()) == 2
    with pytest.raises(UserError, match="no Debian source package"):
        source.releases("ruby-other", 10)


@pytest.mark.skipif(not minitest(), reason="Ruby with minitest is not installed: apt-get install ruby ruby-minitest")
def test_what_a_release_changes_in_a_ruby_file_is_an_environment_that_measures_the_same_again(mirror, tmp_path):
    source = DebianSources(mirror)
    found = source.releases("ruby-shop", 10)
    path = assemble(source, "ruby-shop", found, tmp_path / "clone")
    settings = BuildSettings(seconds=30)
    account = build_repository(
        path,
        "debian/ruby-shop",
        tmp_path / "out",
        settings,
        checkouts=ProcessCheckouts(),
        releases=found,
        language="ruby",
    )
    assert account.outcomes == {"part": {"valid": 1}}
    environment, (row,) = read_shard(tmp_path / "out/manifest", "debian/ruby-shop")
    assert environment.language == row.language == "ruby" and environment.requirements[0].startswith("debian:ruby=")
    assert row.fail_to_pass == ("test/test_shop.rb::TestShop#test_cheapest",) and row.pass_to_pass == 1
    built = build(row, Clone(path), tmp_path / "built")
    assert (built.directory / "lib/shop.rb").read_text() == SHOP and "TestShop#test_cheapest" in built.statement
    setup = restore(environment, Clone(path), tmp_path / "again")
    assert validate_rows([row], Suite(Clone(path), setup, ProcessCheckouts(), 30)).share == 1


def repository(place, files):
    (place / "archive.tar.gz").write_bytes(archive("shop-1", files))
    (place / "shop").mkdir()
    subprocess.run(["tar", "xzf", "../archive.tar.gz", "--strip-components=1"], cwd=place / "shop", check=True)
    for arguments in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "one"],
    ):
        subprocess.run(["git", *arguments], cwd=place / "shop", check=True)
    return Clone(place / "shop")


def edit(path, old, new):
    return f"--- a/{path}\n+++ b/{path}\n@@ -1 +1 @@\n-{old}\n+{new}\n".encode()


@pytest.mark.skipif(
    not (bubblewrap_works() and shutil.which("cmake")),
    reason="needs bubblewrap and CMake: apt-get install bubblewrap cmake",
)
def test_a_tree_in_c_is_built_once_and_a_patch_compiles_only_what_it_touches(tmp_path):
    right = "int total(int a, int b) { return a + b; }"
    files = {"CMakeLists.txt": LISTS, "shop.c": f"{right}\n", "test/one.c": MAIN % "1, 2", "test/two.c": MAIN % "3, 0"}
    clone = repository(tmp_path, files)
    setup = INSTALLERS["c"](clone, clone.head(), tmp_path / "setup", None)
    checkouts = OverlayCheckouts()
    suite = Suite(clone, setup, checkouts, 60)
    try:
        with suite.tree(clone.head()) as tree:
            assert suite.run(tree, (), ()).passed == {"ctest::one", "ctest::two"}
            run = suite.run(tree, [edit("shop.c", right, right.replace("+", "-"))], ())
            assert (run.passed, run.failed) == ({"ctest::two"}, {"ctest::one"})
            with suite.open(tree) as checkout:
                argv, environment = setup.command(checkout.root, tree, ())
                assert checkout.run(argv, environment, 60).exit_code == 0
                assert "Building" not in checkout.run(["cat", "/tmp/arcforge-build.log"], {}, 60).stdout
            with pytest.raises(Rejected, match="does_not_build"):
                suite.run(tree, [edit("shop.c", right, "int total(int a")], ())
    finally:
        checkouts.close()


EXTENSION = {
    "setup.py": "from setuptools import Extension, setup\n\nsetup(name='shop', ext_modules=[Extension('shop', ['shop.c'])])\n",
    "shop.h": "#define PRICE 3\n",
    "shop.c": """#include <Python.h>
#include "shop.h"
static PyObject *price(PyObject *self, PyObject *none) { return PyLong_FromLong(PRICE); }
static PyObject *name(PyObject *self, PyObject *none) { return PyUnicode_FromString("shop"); }
static PyMethodDef methods[] = {{"price", price, METH_NOARGS, ""}, {"name", name, METH_NOARGS, ""}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "shop", "", -1, methods};
PyMODINIT_FUNC PyInit_shop(void) { return PyModule_Create(&module); }
""",
    "tests/test_shop.py": "import shop\n\ndef test_price():\n    assert shop.price() == 3\n\ndef test_name():\n    assert shop.name()\n",
    "benchmarks/test_speed.py": "import no_such_module\n",
}


@pytest.mark.skipif(
    not (bubblewrap_works() and installed("g++", "python3-dev", "python3-setuptools", "python3-pytest-forked")),
    reason="needs bubblewrap and Debian's Python: apt-get install bubblewrap g++ python3-dev python3-setuptools python3-pytest-forked",
)
def test_an_extension_module_is_compiled_again_for_a_header_and_a_test_that_kills_its_process_fails_alone(tmp_path):
    clone = repository(tmp_path, EXTENSION)
    setup = INSTALLERS["c"](clone, clone.head(), tmp_path / "setup", None)
    assert setup.options == ("tests",) and {row.split("=")[0] for row in setup.requirements} >= {"debian:python3-dev"}
    checkouts = OverlayCheckouts()
    suite = Suite(clone, setup, checkouts, 60)
    both = {f"pytest::tests/test_shop.py::test_{name}" for name in ("price", "name")}
    try:
        with suite.tree(clone.head()) as tree:
            assert suite.run(tree, (), ()).passed == both
            for price in ("4", "(__builtin_trap(), 3)"):
                run = suite.run(tree, [edit("shop.h", "#define PRICE 3", f"#define PRICE {price}")], ())
                assert (run.failed, run.passed) == ({"pytest::tests/test_shop.py::test_price"}, both - run.failed)
    finally:
        checkouts.close()


JAVA = {
    "pom.xml": "<project/>\n",
    "src/main/java/shop/Prices.java": "package shop; public class Prices { public static int total(int a, int b) { return a + b; } }\n",
    "src/test/java/shop/OneTest.java": "package shop; import org.junit.jupiter.api.*;\n"
    "class OneTest { @Test void one() { Assertions.assertEquals(3, Prices.total(1, 2)); }\n"
    "@Test void none() { Assertions.assertEquals(3, Prices.total(3, 0)); } }\n",
    "src/test/java/shop/OtherTest.java": "package shop; class OtherTest { NoSuchClass other; }\n",
}


@pytest.mark.skipif(
    not (bubblewrap_works() and installed("openjdk-17-jdk-headless", "junit4", "junit5")),
    reason="needs bubblewrap, a JDK and JUnit: apt-get install bubblewrap openjdk-17-jdk-headless junit4 junit5",
)
def test_java_is_compiled_once_and_a_test_that_does_not_compile_breaks_no_other(tmp_path):
    clone = repository(tmp_path, JAVA)
    setup = INSTALLERS["java"](clone, clone.head(), tmp_path / "setup", None)
    checkouts = OverlayCheckouts()
    suite = Suite(clone, setup, checkouts, 60)
    one, other = (f"src/test/java/shop/{name}Test.java" for name in ("One", "Other"))
    path = "src/main/java/shop/Prices.java"
    right = JAVA[path].strip()
    try:
        with suite.tree(clone.head()) as tree:
            run = suite.run(tree, (), (one, other))
            assert len(run.passed) == 2 and run.broken == {other}
            run = suite.run(tree, [edit(path, right, right.replace("+", "-"))], (one,))
            assert [test.rpartition("one")[1] for test in run.failed] == ["one"] and len(run.passed) == 1
            with pytest.raises(Rejected, match="does_not_build"):
                suite.run(tree, [edit(path, right, "package shop; class")], (one,))
    finally:
        checkouts.close()


OLD = {
    "c": "int f(int a) { return a; }\nstatic int g(void) { return 1; }\n",
    "cpp": "namespace n { struct S { int f() { return 1; } }; }\nint n::h() { return 1; }\n",
    "go": "package a\n\nfunc (s *S) F() int { return 1 }\nfunc G() int { return 1 }\n",
    "java": "class A { int f() { return 1; } int g() { return 1; } int g(int a) { return 1; } }\n",
    "javascript": "const f = (a) => a + 1;\nclass A { g() { return 1; } }\nexports.h = function () { return 1; };\n",
    "typescript": "export const f = (a: number): number => a + 1;\nclass A { g(): number { return 1; } }\n",
    "php": "<?php\nclass A { function f() { return 1; } }\nfunction g() { return 1; }\n",
    "ruby": "module M\n  class A\n    def f = 1\n    def self.g\n      1\n    end\n  end\nend\n",
}
NAMES = {
    "c": {"f", "g"}, "cpp": {"n.S.f", "n::h"}, "go": {"S.F", "G"}, "java": {"A.f"}, "javascript": {"f", "A.g", "exports.h"},
    "typescript": {"f", "A.g"}, "php": {"A.f", "g"}, "ruby": {"M.A.f", "M.A.g"},
}  # fmt: skip


@pytest.mark.parametrize("language", OLD)
def test_functions_are_as_they_were_and_comments_are_no_code(language):
    pytest.importorskip("tree_sitter", reason="pip install 'arcforge[languages]'")
    old = OLD[language]
    new = old.replace("1", "2").replace("return a;", "return 2;")
    found = functions_taken_back(language, old, new)
    assert set(found) == NAMES[language]
    assert all((text != new and len(text) == len(new)) or language == "c" for text in found.values())
    said = "# so\n" if language == "ruby" else "// so\n"
    assert same_code(language, old, old + said) and not same_code(language, old, new)


ADDED = {
    "c": "int f(int a)\n{\n    int b = a;\n    b++;\n    return b;\n}\nint g(void) { return 1; }\n",
    "cpp": "struct S { S() : a(1) {\n  a++;\n  a++;\n  a++;\n} int a; };\n",
    "go": "package a\n\nfunc (s *S) F() int {\n\ta := 1\n\ta++\n\treturn a\n}\n",
    "java": "class A { int f() {\n  int a = 1;\n  a++;\n  return a;\n} abstract int g(); }\n",
    "javascript": "const f = (a) => {\n  let b = a;\n  b++;\n  return b;\n};\nconst g = (a) => [\n 1,\n 2,\n 3,\n];\n",
    "typescript": "export const f = (a: number): number => {\n  let b = a;\n  b++;\n  return b;\n};\n",
    "php": "<?php\nclass A { function f() {\n  $a = 1;\n  $a++;\n  return $a;\n} }\n",
    "ruby": "module M\n  def f(a)\n    b = a\n    b += 1\n    b\n  end\nend\n",
}
STUBBED = {
    "c": "int f(int a)\n{ __builtin_trap(); }\nint g", "cpp": "S() : a(1) { __builtin_trap(); } int a;",
    "go": 'int { panic("not implemented") }\n', "java": "f() { throw new UnsupportedOperationException(); } abstract",
    "javascript": '=> { throw new Error("not implemented"); };\nconst g', "typescript": '{ throw new Error("not implemented"); };\n',
    "php": "f() { throw new \\LogicException('not implemented'); } }", "ruby": "def f(a)\n    raise NotImplementedError\n  end\n",
}  # fmt: skip


@pytest.mark.parametrize("language", ADDED)
def test_new_functions_have_no_body(language):
    pytest.importorskip("tree_sitter", reason="pip install 'arcforge[languages]'")
    (found,) = functions_taken_back(language, "<?php\n" if language == "php" else "", ADDED[language]).values()
    assert STUBBED[language] in found and len(found) < len(ADDED[language]) + 20


@pytest.mark.parametrize(
    "language, path, side",
    [
        ("go", "cast_test.go", "test"), ("go", "cast.go", "source"), ("ruby", "spec/a_spec.rb", "test"), ("php", "src/A.php", "source"),
        ("java", "src/test/java/a/ATest.java", "test"), ("typescript", "src/a.d.ts", "source"), ("javascript", "dist/a.js", "other"),
        ("cpp", "include/a/b.hpp", "source"), ("c", "test/a.c", "test"),
    ],
)  # fmt: skip
def test_paths_belong_where_a_language_s_customs_put_them(language, path, side):
    assert LAYOUTS[language].side(path) == side


def test_a_command_that_dies_breaks_its_tests_and_all_of_them_break_the_run():
    setup = Scripted(
        "go", lambda *_: Plan("", (Run("a", "false", "go", "m/a"), Run("b", "false", "go", "m/b"))), (), ()
    )
    marks = [setup._mark(number) for number in range(2)]
    passed = "=== RUN   TestX\n--- PASS: TestX (0.00s)\nPASS\nok  \tm/b\t0.01s\n"
    died = f"suite-start {marks[0]}\nFAIL\tm/a [build failed]\nFAIL\n\nsuite-end {marks[0]} 2\n"
    log = died + f"suite-start {marks[1]}\n{passed}\nsuite-end {marks[1]} 0\n"
    run = setup.read(ExecResult(exit_code=0, stdout=log, stderr=""), ())
    assert run.passed == {"b::TestX"} and run.broken == {"a"} and run.fails("a::TestY")
    log = died + f"suite-start {marks[1]}\nFAIL\tm/b [build failed]\nFAIL\n\nsuite-end {marks[1]} 2\n"
    with pytest.raises(Rejected, match="suite_did_not_run"):
        setup.read(ExecResult(exit_code=0, stdout=log, stderr=""), ())
