"""One function per stage: read the checkpoint before, do the stage, write its checkpoint, return what to report."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from arcforge.chat.template import render
from arcforge.chat.tokenizer import Tokenizer
from arcforge.clients.openai import ChatCompleter
from arcforge.core.errors import UserError
from arcforge.core.messages import Message, Thinking
from arcforge.core.protocols import Completer
from arcforge.core.runs import atomic_write
from arcforge.data.corpus import tokenizer_texts
from arcforge.envs.chat.family import ChatFamily
from arcforge.envs.chat.preferences import preference_pairs
from arcforge.envs.registry import family
from arcforge.infer.engine import Engine, EngineConfig, load_engine
from arcforge.model.checkpoint import save_checkpoint
from arcforge.pipeline.agentic import run_agentic
from arcforge.pipeline.evaluate import run_evaluation
from arcforge.pipeline.export import run_export
from arcforge.pipeline.recipe import Recipe
from arcforge.pipeline.workspace import Workspace
from arcforge.rewards.hybrid import HybridScorer
from arcforge.rewards.judge import Judge
from arcforge.rewards.outcome import OutcomeScorer
from arcforge.rewards.rubric_judge import RubricJudge
from arcforge.rewards.rules import RuleScorer
from arcforge.rl.distill import Teacher, distillation_loss, teacher_signal
from arcforge.rl.losses import grpo_icepop
from arcforge.rl.onpolicy import OnPolicyConfig, Result, Stage, train
from arcforge.rl.policy import Loss, Policy
from arcforge.train.context import read_checkpoint
from arcforge.train.midtrain import midtrain
from arcforge.train.pretrain import pretrain
from arcforge.train.reward_model import train_reward_model
from arcforge.train.sft import sft
from arcforge.train.sparse import sparse

Report = dict[str, float]
TOKENIZER_CONVERSATIONS = 400
PREFERENCE_PAIRS = 1024


def run_tokenizer(work: Workspace) -> Report:
    """Byte-level BPE with GLM-5's control tokens, on the corpus and conversations of every family."""
    examples = [f.demonstration(i) for f in work.families() for i in range(TOKENIZER_CONVERSATIONS)]
    tokenizer = Tokenizer.train(tokenizer_texts(work.corpus, examples), work.recipe.model.vocab_size)
    tokenizer.save(work.checkpoint("tokenizer"))
    size = sum(len(d.text.encode()) for d in work.corpus.held_out)
    tokens = sum(len(ids) for ids in tokenizer.encode_batch([d.text for d in work.corpus.held_out]))
    return {"vocabulary": tokenizer.vocab_size, "bytes_per_token": size / max(1, tokens)}


def run_pretrain(work: Workspace) -> Report:
    context = work.context("pretrain")
    context.finish(pretrain(work.recipe.pretrain, work.recipe.model, work.corpus, context))
    return {"tokens": work.recipe.pretrain.tokens}


def run_midtrain(work: Workspace) -> Report:
    context = work.context("midtrain")
    context.finish(midtrain(work.recipe.midtrain, work.checkpoint("pretrain"), work.corpus, context))
    return {"tokens": sum(work.recipe.midtrain.tokens)}


def run_sparse(work: Workspace) -> Report:
    context, recipe = work.context("sparse"), work.recipe
    context.finish(sparse(recipe.sparse, recipe.midtrain, work.checkpoint("midtrain"), work.corpus, context))
    return {"index_topk": recipe.model.index_topk}


def run_sft(work: Workspace) -> Report:
    context = work.context("sft")
    model, report = sft(
        work.recipe.sft, work.families(), work.checkpoint("sparse"), context, work.recipe.sparse.freeze_indexer
    )
    context.finish(model)
    return report


def run_reasoning_rl(work: Workspace) -> Report:
    """GRPO with the IcePop mask, no KL (GLM-5 report, section 3.2)."""
    loss: Loss = lambda train, rollout, scores, mask, weights: grpo_icepop(  # noqa: E731
        train, rollout, scores, mask, weights_BT=weights
    )
    families = [family("reason", work.recipe.run.seed)]
    return _on_policy(work, "reasoning_rl", "sft", work.recipe.reasoning_rl, families, loss)


def run_agentic_rl(work: Workspace) -> Report:
    return run_agentic(work)


def run_general_rl(work: Workspace) -> Report:
    """Three dimensions under a hybrid reward: rules, an outcome reward model trained here, a generative judge (3.4)."""
    recipe, folder = work.recipe, work.folder("general_rl")
    reward_folder = folder / "reward_model"
    if not (reward_folder / "accuracy.json").exists():
        pairs = preference_pairs(PREFERENCE_PAIRS, work.seed("general_rl"))
        model, accuracy = train_reward_model(
            recipe.reward_model, pairs, work.checkpoint("sft"), work.context("general_rl")
        )
        work.tokenizer.save(reward_folder)
        save_checkpoint(model, reward_folder)
        atomic_write(reward_folder / "accuracy.json", json.dumps({"accuracy": accuracy}))
    accuracy = json.loads((reward_folder / "accuracy.json").read_text())["accuracy"]
    chat = ChatFamily(recipe.run.seed, hybrid_scorer(work, reward_folder))
    loss: Loss = lambda train, rollout, scores, mask, weights: grpo_icepop(  # noqa: E731
        train, rollout, scores, mask, weights_BT=weights
    )
    report = _on_policy(work, "general_rl", "agentic_rl", recipe.general_rl, [chat], loss)
    return {**report, "reward_model_accuracy": accuracy}


def run_distill(work: Workspace) -> Report:
    """On-policy cross-stage distillation: the student starts from general RL (GLM-5 report, section 3.5). Each teacher's
    prompts are those of its own training: the SFT teacher's are a family that no RL stage trains."""
    seed, named = work.recipe.run.seed, teacher_families(work.recipe)
    teachers = [Teacher(name, family(domain, seed), _engine(work.checkpoint(name))) for name, domain in named.items()]
    signal = teacher_signal(teachers)
    families = [teacher.family for teacher in teachers]
    return _on_policy(work, "distill", "general_rl", work.recipe.distill, families, distillation_loss, signal)


def teacher_families(recipe: Recipe) -> dict[str, str]:
    """The stages whose checkpoints teach, and the family whose prompts each of them teaches."""
    agentic = {"agentic_rl": "swe"} if recipe.distill_teachers.agentic_teacher else {}
    return {"sft": "recall", "reasoning_rl": "reason", "general_rl": "chat", **agentic}


def hybrid_scorer(work: Workspace, reward_folder: Path) -> HybridScorer:
    """Rules, the served reward model in this process, and the judge of the recipe."""
    engine, tokenizer = _engine(reward_folder), work.tokenizer

    async def reward(messages: list[Message] | tuple[Message, ...]) -> float:
        return engine.reward([render(messages, (), Thinking(enabled=False), tokenizer).ids])[0]

    return HybridScorer({"rules": RuleScorer(), "outcome": OutcomeScorer(reward), "judge": Judge(_judge(work))})  # type: ignore[arg-type]


def _judge(work: Workspace) -> Completer:
    config = work.recipe.judge
    if not config.base_url:
        return RubricJudge()
    key = os.environ.get(config.api_key_variable, "") if config.api_key_variable else ""
    if config.api_key_variable and not key:
        raise UserError(f"judge.api_key_variable: the environment has no {config.api_key_variable}")
    return ChatCompleter(config.base_url, config.model, key)


def _engine(folder: Path) -> Engine:
    return load_engine(folder, EngineConfig(max_running=1, max_length=64))


def _on_policy(
    work: Workspace,
    name: str,
    source: str,
    config: OnPolicyConfig,
    families: list,
    loss: Loss,
    signal: Callable | None = None,
) -> Report:
    stage = Stage(
        name=name,
        families=families,
        loss=loss,
        signal=signal or (lambda batch: batch.advantages),
        folder=work.folder(name),
        trajectories=work.run.trajectories / f"{name}-0.jsonl.zst",
        sink=work.sink,
        tokenizer=work.tokenizer,
        seed=work.seed(name),
        save_seconds=work.recipe.run.save_seconds,
    )
    policy = Policy(read_checkpoint(work.checkpoint(source)), config.lr, work.recipe.sparse.freeze_indexer)
    result = train(config, stage, policy)
    finish(work, name, policy, result)
    return {"beyond_topk_share": result.beyond_topk_share}


def finish(work: Workspace, name: str, policy: Policy, result: Result) -> None:
    """Checkpoint and histograms of an RL stage."""
    atomic_write(work.folder(name) / "histograms.json", json.dumps(result.histograms))
    work.context(name).finish(policy.model)


STAGE_FUNCTIONS: dict[str, Callable[[Workspace], Report]] = {
    "tokenizer": run_tokenizer,
    "pretrain": run_pretrain,
    "midtrain": run_midtrain,
    "sparse": run_sparse,
    "sft": run_sft,
    "reasoning_rl": run_reasoning_rl,
    "agentic_rl": run_agentic_rl,
    "general_rl": run_general_rl,
    "distill": run_distill,
    "evaluate": run_evaluation,
    "export": run_export,
}
