"""The rubric of a terminal task: eleven criteria, by the names that Harbor's own check gives them.

GLM-5 report, section 4.2.2: tasks are refined against rubrics that people wrote (the image builds, tests agree with the
instruction, nothing can be exploited).
"""

from __future__ import annotations

from typing import Literal, get_args

from arcforge.core.messages import Value

Mark = Literal["pass", "fail", "not applicable"]
MARKS: tuple[Mark, ...] = get_args(Mark)
CRITERIA: dict[str, str] = {
    "behavior_in_task_description": "Everything that the tests check is said in the instruction.",
    "behavior_in_tests": "Everything that the instruction asks for is checked by the tests.",
    "informative_test_structure": "The tests are in an order and with names or messages that tell what failed.",
    "anti_cheating_measures": (
        "The task cannot be passed without doing it: not by reading the answer in the environment, nor by editing the data that is "
        "judged, nor by output that has the right shape alone."
    ),
    "structured_data_schema": "Where the agent writes structured data, the instruction gives its exact schema.",
    "pinned_dependencies": "Dependencies from package indexes are pinned to versions. Debian packages need not be.",
    "typos": "No typos in file names, variables, commands and text that would mislead.",
    "tests_or_solution_in_image": "Neither the tests nor the solution are in the image that the agent works in.",
    "test_deps_in_image": "What only the tests need is not installed in the image; here tests install nothing, they are offline.",
    "hardcoded_solution": "The solution works the answer out by the steps that an agent would take; it does not just write it down.",
    "file_reference_mentioned": "Files that the agent makes and the tests look at are named in the instruction.",
}


class Finding(Value):
    """One criterion of one task. by: "rule" or "judge"."""

    criterion: str
    mark: Mark
    reason: str
    by: Literal["rule", "judge"]
