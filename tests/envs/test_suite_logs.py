"""Logs of real test runs, read. What each log is and how it was made: logs/README.md."""

import random
import re
import subprocess
from pathlib import Path

import pytest

from arcforge.core.errors import UserError, VerifierError
from arcforge.envs.swe.logs.parse import LANGUAGES, PARSERS, bracket, lines, marked, parse, report

LOGS = Path(__file__).with_name("logs")


def log(name):
    return (LOGS / f"{name}.txt").read_text()


# parser, log, exit code of the run, what has to be in the report
CASES = [
    ("pytest", "pytest-v-rA", 1, {
        "tests/test_shop.py::test_words[a - b]": "passed", "tests/test_shop.py::test_words[x]]": "passed",
        "tests/test_shop.py::test_words[PASSED y]": "passed", "tests/test_shop.py::test_breaks[one - two]": "failed",
        "tests/test_shop.py::test_skipped": "skipped", "tests/test_shop.py::test_expected": "passed",
        "tests/test_shop.py::test_teardown": "error"}, 10),
    ("pytest", "pytest-q-rA", 1, {
        "tests/test_shop.py::test_breaks[one - two]": "failed", "tests/test_shop.py::test_words[a - b]": "passed",
        "tests/test_shop.py:12": "skipped"}, 10),
    ("pytest", "pytest-xdist", 1, {
        "tests/test_shop.py::test_words[a b]": "passed", "tests/test_shop.py::test_teardown": "error"}, 10),
    ("pytest", "pytest-v", 0, {"tests/test_shop.py::test_skipped": "skipped"}, 5),
    ("pytest", "pytest-q-rA-collection", 2, {"tests/test_load.py": "error"}, 1),
    ("unittest", "unittest", 1, {
        "test_described (ut.test_unit.Numbers.test_described)": "passed", "setUpClass (ut.test_unit.Broken)": "error",
        "test_prints (ut.test_unit.Numbers.test_prints)": "passed",
        "test_parts (ut.test_unit.Numbers.test_parts)": "failed",
        "test_surprise (ut.test_unit.Numbers.test_surprise)": "failed"}, 11),
    ("junit", "junit-pytest", 1, {"tests.test_shop::test_words[a b]": "passed", "tests.test_shop::test_teardown": "error"}, 10),
    ("junit", "junit-phpunit", 2, {"Shop.Tests.ShopTest::testBreaks": "error"}, 10),
    ("junit", "junit-googletest", 1, {"Some/Words::Length/1": "failed", "Numbers::DISABLED_Off": "skipped"}, 7),
    ("go", "go", 1, {
        "example.com/shop.TestAdds": "passed", "example.com/shop.TestTable/a/b": "passed",
        "example.com/shop.TestTable/bad": "failed", "example.com/shop/sub.TestAdds": "passed",
        "example.com/shop/panics.TestPanics": "failed", "example.com/shop/panics.TestWaits": "error",
        "example.com/shop/broken": "error"}, 15),
    ("go-json", "go-json", 1, {"example.com/shop.TestAdds": "passed", "example.com/shop/panics.TestWaits": "error"}, 13),
    ("ctest", "ctest", 8, {"a name with spaces": "passed", "slow": "failed", "off": "skipped", "missing": "failed"}, 8),
    ("ctest", "ctest-verbose", 0, {"adds": "passed", "skipped": "skipped"}, 4),
    ("googletest", "googletest", 1, {
        "Numbers.Speaks": "passed", "Some/Words.Length/1": "failed", "Numbers.Skipped": "skipped"}, 6),
    ("node-spec", "node-spec", 1, {
        "numbers > adds 1 + 1": "passed", "numbers > fails # here": "failed", "numbers > deeper > breaks": "failed",
        "numbers > is skipped": "skipped", "top level (1 of 2) > inner step": "passed"}, 12),
    ("tap", "node-tap", 1, {
        "numbers > fails # here": "failed", "numbers > is to do": "skipped", "numbers > deeper > adds 1 + 1": "passed"}, 10),
    ("tap", "tape", 1, {"one and one": "passed", "fails": "failed"}, 2),
    ("jest", "jest", 1, {
        "./a.test.js > numbers > fails (often)": "failed", "./a.test.js > numbers > deeper > adds 1 + 1": "passed",
        "./a.test.js > top level": "passed", "./b.test.js": "error", "./c.test.js > other": "passed",
        "./a.test.js > numbers > is off": "skipped"}, 8),
    ("vitest", "vitest", 1, {
        "v/a.test.mjs > numbers > deeper > adds a > b": "passed", "v/a.test.mjs > numbers > fails (often)": "failed",
        "v/b.test.mjs": "error", "v/a.test.mjs > numbers > is to do": "skipped", "v/c.test.mjs > other": "passed"}, 7),
    ("mocha", "mocha", 2, {
        "numbers > fails (often)": "failed", "numbers > deeper > is slow": "passed", "top": "passed",
        'hooks > "before each" hook for "never"': "failed", "numbers > waits": "skipped"}, 6),
    ("phpunit", "phpunit", 2, {
        "Shop\\Tests\\Shop::Fails": "failed", 'Shop\\Tests\\Shop::Words with data set "with (brackets)"': "passed",
        "Other::It speaks": "passed", "Shop\\Tests\\Shop::Is incomplete": "skipped"}, 10),
    ("phpunit", "phpunit-ok", 0, {"Other::It speaks": "passed"}, 1),
    ("minitest", "minitest", 1, {
        "A shop#test_0001_sells a = b": "passed", "NumbersTest#test_speaks": "passed", "NumbersTest#test_breaks": "error"}, 6),
    ("rspec", "rspec", 1, {
        "Shop > fails (often)": "failed", "Shop > when closed > #door > is shut": "failed", "Shop > waits": "skipped",
        "Other > speaks": "passed"}, 7),
    ("test-unit", "test-unit", 1, {
        "test_speaks(TestNumbers)": "passed", "test_data[one two](TestNumbers)": "passed", "test_breaks(TestNumbers)": "error",
        "test_omits(TestNumbers)": "skipped"}, 8),
    ("test-unit", "test-unit-long", 1, {
        "test_adds_two_numbers_whose_sum_is_larger_than_any_other_in_the_suite(TestNumbers)": "passed",
        "test_fails_because_two_numbers_are_not_the_same_as_they_were_long_ago(TestNumbers)": "failed"}, 3),
]  # fmt: skip
FORGED = ["node-spec", "ctest", "go", "go-json", "googletest", "mocha", "phpunit", "rspec"]


@pytest.mark.parametrize(("parser", "name", "exit_code", "wanted", "count"), CASES, ids=[case[1] for case in CASES])
def test_a_real_log(parser, name, exit_code, wanted, count):
    found = report(parser, log(name), exit_code)
    assert {test: found.tests.get(test) for test in wanted} == wanted
    assert len(found.tests) == count and found.summary
    broken = any(outcome in ("failed", "error") for outcome in found.tests.values())
    with pytest.raises(VerifierError, match="exit code"):
        parse(parser, log(name), 0 if broken else 1)


@pytest.mark.parametrize("name", FORGED)
def test_what_a_program_prints_is_no_result(name):
    """The same runs with a test that prints a line of its runner's."""
    with pytest.raises(VerifierError):
        parse(name, log(f"{name}-forged"))


@pytest.mark.parametrize(("parser", "name"), [case[:2] for case in CASES], ids=[case[1] for case in CASES])
def test_a_log_that_was_cut_off_or_lost_a_result_is_not_believed(parser, name):
    """Cut anywhere before its end, a log raises or says of every test what the whole one says."""
    text, whole = log(name), parse(parser, log(name))
    rng = random.Random(name)
    for _ in range(12):
        cut = text[: rng.randrange(len(text) * 9 // 10)]
        try:
            assert dict(parse(parser, cut)).items() <= dict(whole).items()
        except VerifierError:
            continue
    with pytest.raises(VerifierError):
        parse(parser, text[: len(text) // 6])


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize(
    "text", ["", "Segmentation fault\n", "bash: no such command\n" * 3, "\x00\x1b[31m\r\r\n{}\n<a/>\n"]
)
def test_a_log_without_a_suite_is_an_error(parser, text):
    with pytest.raises(VerifierError):
        parse(parser, text)


def test_nine_languages_and_names_that_do_not_exist():
    assert len(LANGUAGES) == 9 and {name for names in LANGUAGES.values() for name in names} == set(PARSERS)
    with pytest.raises(UserError, match="the nearest is pytest"):
        parse("pytst", "")


def test_colours_and_lines_that_were_written_over():
    assert lines("\x1b[31mred\x1b[0m\r\n 10%\r100%\n\x1b]0;title\x07x") == ["red", "100%", "x"]
    assert "\x1b[" in log("rspec") and "\x1b[" in log("pytest-v-rA")


def test_a_test_that_ran_twice_has_its_worst_outcome():
    text = "=== RUN   TestA\n--- PASS: TestA (0.00s)\n=== RUN   TestA\n--- FAIL: TestA (0.00s)\nFAIL\nFAIL\tx\t0.1s\n"
    assert parse("go", text) == {"x.TestA": "failed"}


def test_a_changed_count_is_found():
    text = re.sub(r"1 failed, 6 passed", "1 failed, 7 passed", log("pytest-q-rA"))
    with pytest.raises(VerifierError, match=r"tells 8 passed, the log shows 7|tells \d+ passed"):
        parse("pytest", text)


def test_a_run_between_marks_is_told_from_what_stands_around_it():
    nonce = "5f3a"
    command = bracket("echo 'suite-end 0000 0'; echo running; exit 3", nonce)
    said = subprocess.run(
        ["bash", "-c", f"echo before; {command}; echo after"], check=False, capture_output=True, text=True, timeout=20
    )
    inside, exit_code = marked(said.stdout, nonce)
    assert "running" in inside and "before" not in inside and "after" not in inside and exit_code == 3
    for broken in (
        said.stdout.replace("suite-end 5f3a", "x"),
        said.stdout + f"suite-end {nonce} 0\n",
        "",
        said.stdout[:20],
    ):
        with pytest.raises(VerifierError, match="marks"):
            marked(broken, nonce)


MAVEN = """[INFO] Running com.example.NumbersTest
[ERROR] Tests run: 5, Failures: 1, Errors: 1, Skipped: 1, Time elapsed: 0.045 s <<< FAILURE! -- in com.example.NumbersTest
[ERROR] com.example.NumbersTest.fails -- Time elapsed: 0.004 s <<< FAILURE!
org.opentest4j.AssertionFailedError: expected: <1> but was: <2>
[ERROR] com.example.NumbersTest.words(String)[1] -- Time elapsed: 0.001 s <<< ERROR!
[INFO] Running com.example.FineTest
[INFO] Tests run: 2, Failures: 0, Errors: 0, Skipped: 0, Time elapsed: 0.002 s -- in com.example.FineTest
[INFO] Results:
[ERROR] Tests run: 7, Failures: 1, Errors: 1, Skipped: 1
[INFO] BUILD FAILURE
"""
GRADLE = """> Task :test FAILED

NumbersTest > adds() PASSED

NumbersTest > Inner > words(String) > [1] a b FAILED
    org.opentest4j.AssertionFailedError at NumbersTest.java:9

NumbersTest > off() SKIPPED

3 tests completed, 1 failed, 1 skipped
BUILD FAILED in 3s
"""


def test_surefire_names_what_broke_and_the_classes():
    assert parse("maven", MAVEN, 1) == {
        "com.example.NumbersTest.fails": "failed", "com.example.NumbersTest.words(String)[1]": "error",
        "com.example.NumbersTest": "error", "com.example.FineTest": "passed",
    }  # fmt: skip
    older = """Tests run: 1, Failures: 1, Errors: 0, Skipped: 0, Time elapsed: 0.05 sec <<< FAILURE! - in com.example.A
fails(com.example.A)  Time elapsed: 0.01 sec  <<< FAILURE!
Tests run: 1, Failures: 1, Errors: 0, Skipped: 0
[INFO] BUILD FAILURE
"""
    assert parse("maven", older, 1) == {"com.example.A.fails": "failed"}
    for wrong in (MAVEN.replace("Tests run: 2,", "Tests run: 3,"), MAVEN.replace("[INFO] BUILD FAILURE\n", ""),
                  MAVEN + "Tests run: 9, Failures: 0, Errors: 0, Skipped: 0\n"):  # fmt: skip
        with pytest.raises(VerifierError):
            parse("maven", wrong, 1)


def test_gradle_with_its_test_events():
    assert parse("gradle", GRADLE, 1) == {
        "NumbersTest > adds()": "passed", "NumbersTest > Inner > words(String) > [1] a b": "failed", "NumbersTest > off()": "skipped",
    }  # fmt: skip
    for wrong in (GRADLE.replace("FAILED in", "SUCCESSFUL in"), GRADLE.replace("3 tests", "4 tests"),
                  GRADLE.replace("b FAILED", "b PASSED"), GRADLE.replace("BUILD", "build")):  # fmt: skip
        with pytest.raises(VerifierError):
            parse("gradle", wrong)


def test_a_junit_report_with_entities_is_refused():
    bomb = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aa">]><testsuite tests="0"/>'
    with pytest.raises(VerifierError, match="document type"):
        parse("junit", bomb)
