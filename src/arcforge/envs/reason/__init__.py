"""Single-turn problems with one short exact answer: math, code, logic, table (reasoning RL, GLM-5 report, section 3.2)."""

from arcforge.envs.reason.family import ReasonFamily

__all__ = ["ReasonFamily"]
