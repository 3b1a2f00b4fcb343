"""Answers of a model that builds terminal tasks, good and bad, and a script that gives them by what is asked."""

import json

from arcforge.clients.scripted import ScriptedCompleter
from arcforge.core.messages import Message
from arcforge.envs.asking import Asker
from arcforge.envs.terminal.synthesis.factory import Models
from arcforge.envs.terminal.synthesis.files import show_files

IDEAS = [
    {
        "title": "Sum a column",
        "goal": "There is a table of amounts; their sum must be written to a file.",
        "difficulty": 1,
        "skills": ["awk"],
    },
    {
        "title": "Longest line",
        "goal": "Of all lines in a text, the longest one must be found and stored elsewhere.",
        "difficulty": 2,
        "skills": ["sort", "awk"],
    },
]
GOOD = {
    "instruction.md": "Write the sum of the numbers in /app/amounts.txt, one a line, to /app/sum.txt.",
    "environment/Dockerfile": "FROM debian:bookworm-slim\nWORKDIR /app\nCOPY amounts.txt /app/",
    "environment/amounts.txt": "3\n4\n5",
    "solution/solve.sh": "#!/bin/bash\nawk '{n += $1} END {print n}' amounts.txt > sum.txt",
    "tests/checks.json": '[{"kind": "text", "path": "sum.txt", "text": "12\\n"}]',
}
EASY = {
    "tests/test.sh": 'cd /app\nif [ "$(wc -l < amounts.txt)" = 3 ]; then echo 1; else echo 0; fi > /logs/verifier/reward.txt'
}
CHEATING = {"tests/test.sh": "echo 1 > /logs/verifier/reward.txt"}
UNFORMED = "Here is the task:\n" + show_files(GOOD)


def answer(changes=None, leave=()):
    """The good task's files with these changes, as the model gives them."""
    return show_files({path: text for path, text in {**GOOD, **(changes or {})}.items() if path not in leave})


def easy(changes=EASY):
    """A task with tests of its own in place of checks."""
    return answer(changes, leave=("tests/checks.json",))


def marks(request, **wrong):
    """What the judge says: all asked criteria pass but `wrong` (criterion=reason)."""
    asked = json.loads(request.messages[0].content.rpartition("\n\n")[2])["criteria"]
    told = {
        name: {"mark": "fail" if name in wrong else "pass", "reason": wrong.get(name, "as it should be")}
        for name in asked
    }
    return json.dumps(told)


def kind_of(request):
    first = request.messages[0].content
    return next(
        kind
        for kind, mark in {"drafts": "You design", "judge": "You review", "build": "You build"}.items()
        if mark in first
    )


class Script:
    """build: answers in turn for every candidate, the last one again and again. judge: a function of the request, or answers in
    turn. asked: what was asked, in order."""

    def __init__(self, *build, judge=marks, drafts=IDEAS):
        self.build, self.judge, self.drafts = build, judge, drafts
        self.asked = []
        self.completer = ScriptedCompleter(self._answer)

    def _answer(self, request):
        kind = kind_of(request)
        self.asked.append(kind)
        if kind == "drafts":
            text = json.dumps({"drafts": self.drafts}) if isinstance(self.drafts, list) else self.drafts
        elif kind == "judge":
            text = self.judge(request)
        else:
            turn = sum(kind_of(r) == "build" and r.session == request.session for r in self.completer.requests) - 1
            text = self.build[min(turn, len(self.build) - 1)]
        return text if not isinstance(text, str) else Message(role="assistant", content=text)

    @property
    def models(self):
        asker = Asker(self.completer, "scripted", seconds=20)
        return Models(asker, asker)

    def told(self):
        """The problems that the builder was told, in order."""
        return [
            r.messages[-1].content for r in self.completer.requests if kind_of(r) == "build" and len(r.messages) > 1
        ]
