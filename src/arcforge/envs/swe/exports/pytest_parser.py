"""The log_parser of exported results: it is written out whole, so it stands alone."""


def parser(log: str) -> dict[str, str]:
    """Test -> pass, fail or skip, from the lines of `pytest -v`; a test whose teardown breaks fails."""
    import re

    words = {"PASSED": "pass", "XPASS": "pass", "XFAIL": "pass", "FAILED": "fail", "ERROR": "fail", "SKIPPED": "skip"}
    result = re.compile(rf"(\S.*::.*\S) ({'|'.join(words)})(?: \(.*\))?\s*(?:\[ *\d+%\])?")
    found = {}
    for line in log.split("\n"):
        match = result.fullmatch(line)
        if match and found.get(match[1]) != "fail":
            found[match[1]] = words[match[2]]
    return found
