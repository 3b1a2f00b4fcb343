"""The scripted judge: a Completer that reads the rubric and the reply out of the prompt and writes the verdict.

The default judge: no model, no network, the same verdict every time. It decides the sentences of `rewards.criteria` and
answers "unsure" to any other, which the reader of verdicts refuses: it never guesses.
"""

from __future__ import annotations

from arcforge.core.messages import Message
from arcforge.core.protocols import Completion, CompletionRequest
from arcforge.rewards.criteria import holds
from arcforge.rewards.judge import read_prompt

_WORDS = {True: "yes", False: "no", None: "unsure"}


class RubricJudge:
    """Answers prompts of `judge.rubric_prompt`. JudgeError when the last message is none."""

    async def complete(self, request: CompletionRequest) -> Completion:
        rubric, reply = read_prompt(request.messages[-1].content)
        answers = [holds(criterion, reply) for criterion in rubric]
        lines = [f"{number}: {_WORDS[answer]}" for number, answer in enumerate(answers, start=1)]
        text = "\n".join([*lines, f"VERDICT: {sum(answer is True for answer in answers)}/{len(answers)}"])
        return Completion(message=Message(role="assistant", content=text), finish_reason="stop")
