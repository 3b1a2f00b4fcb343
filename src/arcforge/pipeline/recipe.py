"""A recipe: one TOML file of data, typed and strict; every value can be overridden as `section.key=value`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from arcforge.core.config import Config, build, override, read_toml
from arcforge.data.corpus import DataConfig
from arcforge.launch.ray import RayConfig
from arcforge.model.config import ModelConfig
from arcforge.model.hf_config import refuse_variants
from arcforge.rl.agentic_step import AgenticConfig
from arcforge.rl.onpolicy import OnPolicyConfig
from arcforge.train.midtrain import MidtrainConfig
from arcforge.train.pretrain import PretrainConfig
from arcforge.train.reward_model import RewardModelConfig
from arcforge.train.sft import SftConfig
from arcforge.train.sparse import SparseConfig


class RunConfig(Config):
    """folder: where everything goes. threads: CPU threads of stages that run in one process. save_seconds: how much of a
    training stage a kill may cost, since its state is saved that often."""

    folder: str
    seed: int = 0
    threads: int = Field(default=2, ge=1)
    save_seconds: float = Field(default=20.0, ge=0)


class JudgeConfig(Config):
    """The generative judge of general RL: an OpenAI-style endpoint, or the scripted rubric judge when base_url is empty."""

    base_url: str = ""
    model: str = ""
    api_key_variable: str = ""


class DistillConfig(Config):
    """agentic_teacher: a fourth teacher, ours, off by default (the report's three are SFT, reasoning and general RL)."""

    agentic_teacher: bool = False


class EvaluateConfig(Config):
    """tasks per capability and checkpoint; retrieval: rows per length; mtp_prompts: texts continued with drafts."""

    tasks: int = 128
    retrieval_rows: int = 32
    retrieval_lengths: tuple[int, ...] = (256, 512, 1024, 2048)
    mtp_prompts: int = 16


class RecordConfig(Config):
    """What a record measures beside one run per seed (`claims`). compared: the seeds whose runs the comparisons are made
    with. teacher_tasks: of distillation against its teachers."""

    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1)
    compared: tuple[int, ...] = (0, 1, 2)
    teacher_tasks: int = Field(default=2048, ge=1)


class Recipe(Config):
    """Everything a run needs. `model` holds a checkpoint's config.json values; the rest are fewer than 100 fields.
    `ray`: the cluster that agentic RL's processes run on, where it has an address. `record` makes it a record: runs of several
    seeds, and the comparisons."""

    run: RunConfig
    ray: RayConfig = RayConfig()
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    pretrain: PretrainConfig = PretrainConfig()
    midtrain: MidtrainConfig = MidtrainConfig()
    sparse: SparseConfig = SparseConfig()
    sft: SftConfig = SftConfig()
    reasoning_rl: OnPolicyConfig = OnPolicyConfig()
    agentic_rl: AgenticConfig = AgenticConfig()
    reward_model: RewardModelConfig = RewardModelConfig()
    general_rl: OnPolicyConfig = OnPolicyConfig()
    judge: JudgeConfig = JudgeConfig()
    distill: OnPolicyConfig = OnPolicyConfig()
    distill_teachers: DistillConfig = DistillConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    record: RecordConfig | None = None


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read, override, validate. UserError in one line names the key and the nearest known one."""
    recipe = build(Recipe, override(read_toml(path), overrides), str(path))
    refuse_variants(recipe.model, f"{path}: model.")
    return recipe
