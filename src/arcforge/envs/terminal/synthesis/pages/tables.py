"""The funnel as text for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from arcforge.envs.terminal.synthesis.pages.funnel import STEPS, Funnel
from arcforge.envs.terminal.synthesis.pages.strata import Placed


def funnel_table(funnel: Funnel) -> str:
    """A line for each step with what came to it and went on, its reasons below it."""
    lines = [f"{'step':48} {'pages':>7} {'left out':>9} {'go on':>7}"]
    for step in STEPS:
        reasons, entering = funnel.dropped.get(step, {}), funnel.entering(step)
        left = sum(reasons.values())
        lines.append(f"{step:48} {entering:7,} {left:9,} {entering - left:7,}")
        lines += [f"  {reason[:46]:46} {'':7} {number:9,}" for reason, number in reasons.items()]
    return "\n".join([*lines, f"{'suitable':48} {len(funnel.pages):7,}"])


def strata_table(funnel: Funnel, chosen: Sequence[Placed]) -> str:
    """Pages, and how many of them are chosen, by topic and difficulty."""
    taken = Counter((page.topic, page.difficulty) for page in chosen)
    lines = [f"{'topic':20} {'difficulty 1':>15} {'2':>15} {'3':>15} {'all':>15}"]
    for topic, levels in funnel.strata.items():
        cells = [f"{taken[topic, level]} of {levels[level]}" for level in (1, 2, 3)]
        whole = f"{sum(taken[topic, level] for level in levels)} of {sum(levels.values())}"
        lines.append(f"{topic:20} " + " ".join(f"{cell:>15}" for cell in [*cells, whole]))
    return "\n".join(lines)
