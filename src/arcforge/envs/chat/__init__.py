"""Short requests graded by rules, an outcome reward model and a judge (general RL, GLM-5 report, section 3.4)."""

from arcforge.envs.chat.family import ChatFamily
from arcforge.envs.chat.preferences import preference_pairs

__all__ = ["ChatFamily", "preference_pairs"]
