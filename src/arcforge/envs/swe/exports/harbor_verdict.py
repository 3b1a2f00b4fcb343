"""Ends the tests/test.sh of an exported task: pytest's log, its exit code and the task's names become Harbor's reward.

    python -I verdict.py LOG EXIT_CODE

Stands alone, behind the text of pytest_parser.py. No reward when pytest itself did not start: nobody's work is judged by that.
"""

import json
import pathlib
import sys

REWARD = pathlib.Path("/logs/verifier/reward.txt")
ENDED = range(6)  # pytest's own exit codes


def reward(log, exit_code, wanted, parser):
    """1 or 0. A log of failures with the exit code of success, or the other way round, has been tampered with: 0."""
    found = parser(log)
    broken = any(line.startswith("ERROR ") for line in log.split("\n"))  # a file that could not be collected
    failed = broken or any(outcome == "fail" for outcome in found.values())
    passed = all(found.get(name) == "pass" for name in wanted)
    return int(passed and exit_code == int(failed))


def main(parser):
    log, exit_code = pathlib.Path(sys.argv[1]).read_text("utf-8", "replace"), int(sys.argv[2])
    if exit_code not in ENDED:
        sys.exit(f"pytest did not run (exit code {exit_code}): {log[-300:]}")
    wanted = json.loads(pathlib.Path(__file__).with_name("names.json").read_text("utf-8"))
    REWARD.write_text(f"{reward(log, exit_code, wanted['fail_to_pass'] + wanted['pass_to_pass'], parser)}\n")
