"""The on-policy loop and distillation on a tiny untrained model, for real: generate, grade, update, resume."""

import random

import numpy as np
import pytest
import torch
from tiny_model import CONFIG, TOKENIZER, Letters

from arcforge.core.errors import Failure, UserError
from arcforge.core.metrics import JsonLines
from arcforge.core.runs import read_jsonl
from arcforge.core.trajectory import TokenSpan, Trajectory
from arcforge.envs.reason.family import ReasonFamily
from arcforge.infer.engine import Engine, EngineConfig
from arcforge.model.initialise import new_model
from arcforge.rl.distill import Teacher, distillation_loss, teacher_signal
from arcforge.rl.losses import grpo_icepop
from arcforge.rl.onpolicy import OnPolicyConfig, Stage, samples_of, train
from arcforge.rl.policy import Policy
from arcforge.rl.samples import build_batch
from arcforge.rollout.record import read_trajectories


class Killed(Exception):
    pass


def icepop(train_BT, rollout_BT, scores_BT, mask_BT, weights_BT):
    return grpo_icepop(train_BT, rollout_BT, scores_BT, mask_BT, weights_BT=weights_BT)


def stage(folder, families, loss=icepop, signal=lambda batch: batch.advantages, save_seconds=3600.0) -> Stage:
    sink = JsonLines(folder / "metrics.jsonl")
    return Stage("test", families, loss, signal, folder, folder / "t.jsonl.zst", sink, TOKENIZER, 5, save_seconds)


def settings(**changes) -> OnPolicyConfig:
    return OnPolicyConfig(**{"steps": 1, "prompts": 2, "group_size": 4, "context": 64, "lr": 2e-2, **changes})


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """(policy, family, result, rewards by step) of a run that is long enough to learn."""
    folder, family, policy = tmp_path_factory.mktemp("learned"), Letters(), Policy(new_model(CONFIG, 0), 0.1)
    result = train(settings(steps=10, group_size=12), stage(folder, [family]), policy)
    return policy, family, result, [row["reward"] for row in read_jsonl(folder / "metrics.jsonl")]


def test_reward_rises(learned):
    _, family, result, rewards = learned
    assert len(rewards) == 10 and np.mean(rewards[:2]) < 0.3 and np.mean(rewards[-2:]) > 0.6
    assert len(set(family.asked)) == 20, "every prompt is another"
    assert family.closed == 1
    assert result.histograms["staleness"]["counts"][0] == sum(result.histograms["staleness"]["counts"]) == 10 * 24
    assert 0 < result.beyond_topk_share <= 1


def test_every_token_is_trained_with_the_weights_that_sampled_it(tmp_path):
    """Fully on-policy: the ratio of trainer and engine is 1 up to rounding, after updates too."""
    result = train(settings(steps=3), stage(tmp_path, [Letters()]), Policy(new_model(CONFIG, 0), 2e-2))
    ratio = result.histograms["ratio"]
    middle = [count for low, count in zip(ratio["edges"], ratio["counts"], strict=False) if 0.8 < low < 1.1]
    assert sum(middle) == sum(ratio["counts"]) > 0
    versions = [(t.rollout_id, t.versions) for t in read_trajectories(tmp_path / "t.jsonl.zst")]
    assert len(versions) == 24 and [v for _, v in versions] == [[0]] * 8 + [[1]] * 8 + [[2]] * 8


@pytest.mark.parametrize("kill_at", [2, 4])
def test_a_killed_stage_ends_with_the_same_bits(tmp_path, kill_at):
    calls = 0

    def killing(*tensors):
        nonlocal calls
        calls += 1
        if calls == kill_at:
            raise Killed
        return icepop(*tensors)

    def run(folder, loss) -> dict[str, torch.Tensor]:
        policy = Policy(new_model(CONFIG, 0), 2e-2)
        train(settings(steps=4), stage(folder, [Letters()], loss, save_seconds=0.0), policy)
        return policy.model.state_dict()

    whole = run(tmp_path / "whole", icepop)
    with pytest.raises(Killed):
        run(tmp_path / "killed", killing)
    resumed = run(tmp_path / "killed", icepop)
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())
    rewards = [[row["reward"] for row in read_jsonl(tmp_path / name / "metrics.jsonl")] for name in ("whole", "killed")]
    assert rewards[0] == rewards[1] and len(rewards[0]) == 4


def test_one_step_on_a_real_family(tmp_path):
    """Rewards of an untrained model are 0, the group is flat and teaches nothing; the records are complete."""
    family = ReasonFamily()
    longest = max(len(TOKENIZER.encode(m.content)) for i in range(8) for m in family.task("train", i).messages)
    model = new_model(CONFIG, 0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train(settings(context=longest + 400), stage(tmp_path, [family]), Policy(model, 1e-2))
    trajectories = list(read_trajectories(tmp_path / "t.jsonl.zst"))
    assert [t.rollout_id for t in trajectories] == [f"test-{p:06d}-{m}" for p in range(2) for m in range(4)]
    assert all(t.valid and t.family == "reason" and t.spans[-1].source == "model" for t in trajectories)
    (row,) = read_jsonl(tmp_path / "metrics.jsonl")
    assert row["valid_share"] == 1.0 and row["generate_seconds"] > 0
    if row["flat_share"] == 1.0:
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def trajectory(name: str, reward: float | None) -> Trajectory:
    spans = [
        TokenSpan(ids=[1, 2], source="prompt"),
        TokenSpan(ids=[3, 4], source="model", logprobs=[-1.0, -1.0], version=0, trained=True),
    ]
    failure = None if reward is not None else Failure(boundary="sandbox", reason="broke")
    return Trajectory(rollout_id=name, family="f", task_id="t", spans=spans, reward=reward, failure=failure)


def group(name: str, rewards) -> list[Trajectory]:
    return [trajectory(f"{name}-{i}", reward) for i, reward in enumerate(rewards)]


def test_flat_groups_are_left_out_and_broken_ones_repaired_or_dropped():
    groups = [
        group("flat", [1.0, 1.0, 1.0, 1.0]),
        group("mixed", [1.0, 0.0, 0.0, 1.0]),
        group("repaired", [1.0, 0.0, None, 0.0]),
        group("lost", [1.0, None, None, 0.0]),
    ]
    samples = samples_of(groups)
    assert [s.rollout_id for s in samples] == [f"mixed-{i}" for i in range(4)] + [f"repaired-{i}" for i in (0, 1, 3)]
    assert [s.advantage for s in samples[:4]] == [1.0, -1.0, -1.0, 1.0]
    assert [s.share for s in samples[4:]] == pytest.approx([2 / 12, 1 / 12, 1 / 12])


def test_a_step_of_flat_groups_alone_is_a_step_without_gradient():
    samples = samples_of([group("a", [0.0, 0.0]), group("b", [1.0, 1.0])])
    assert [s.rollout_id for s in samples] == ["a-0", "a-1"] and not any(s.advantage for s in samples)


def test_groups_of_one_are_kept_for_distillation_and_lost_steps_are_an_error():
    assert len(samples_of([group("a", [0.0]), group("b", [1.0])])) == 2
    with pytest.raises(UserError, match="more than half"):
        samples_of([group("a", [None, None, 1.0])])


def teachers(families) -> list[Teacher]:
    """The second is the sharper by far, so that mixing them up shows."""
    made = []
    for i, family in enumerate(families):
        model = new_model(CONFIG, seed=10 + i)
        with torch.no_grad():
            model.lm_head.weight.mul_(1.0 + i)
        made.append(Teacher(f"t{i}", family, Engine(model, EngineConfig(max_running=1, max_length=64))))
    return made


def test_each_prompt_is_scored_by_the_teacher_of_its_family():
    rng, both = random.Random(1), teachers([Letters("a"), Letters("b")])
    prompts = []
    for number in range(4):
        spans = [
            TokenSpan(ids=[rng.randrange(250) for _ in range(5 + number)], source="prompt"),
            TokenSpan(ids=[7, 8, 9], source="model", logprobs=[-1.0] * 3, version=0, trained=True),
        ]
        rollout_id = f"some-stage-{number:06d}-0"
        prompts.append([Trajectory(rollout_id=rollout_id, family="f", task_id="t", spans=spans, reward=0.0)])
    batch = build_batch(samples_of(prompts), 32, 0)
    signal = teacher_signal(both)(batch)
    assert signal.shape == batch.rows.ids.shape and signal.dtype == np.float32
    for i, sample in enumerate(batch.samples):
        model = both[int(sample.rollout_id.split("-")[2]) % 2].engine.model
        ids = torch.from_numpy(sample.ids.astype(np.int64))[None]
        with torch.no_grad():
            hidden = model(ids, model.layout(torch.zeros_like(ids), sparse=True)).hidden_BTD
            logprobs = model.lm_head(hidden).log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None]).squeeze(1)
        mine = (batch.rows.document_ids == i) & batch.rows.loss_mask
        assert signal[mine].tolist() == pytest.approx(logprobs[torch.from_numpy(sample.mask[1:])].tolist(), abs=1e-4)


def test_the_student_takes_over_what_its_teacher_learned(tmp_path, learned):
    """The reward is recorded and never used: groups have one member, and the signal is the teacher's. This student's first
    weights take it over within ten steps; others need up to twice as many, and rounding shifts them by as much."""
    teacher = Teacher("learned", Letters(), Engine(learned[0].model, EngineConfig(max_running=1, max_length=64)))
    run = stage(tmp_path, [teacher.family], distillation_loss, teacher_signal([teacher]))
    train(settings(steps=18, prompts=32, group_size=1), run, Policy(new_model(CONFIG, 5), 0.1))
    rewards = [row["reward"] for row in read_jsonl(tmp_path / "metrics.jsonl")]
    assert np.mean(rewards[:3]) < 0.3 and np.mean(rewards[-3:]) > 0.5


def test_prompts_come_from_the_teachers_by_turns(tmp_path):
    both = teachers([Letters("a"), Letters("b")])
    run = stage(tmp_path, [teacher.family for teacher in both], distillation_loss, teacher_signal(both))
    train(settings(steps=2, prompts=4, group_size=1), run, Policy(new_model(CONFIG, 0), 1e-2))
    taken = [(int(t.rollout_id.split("-")[1]), t.family) for t in read_trajectories(tmp_path / "t.jsonl.zst")]
    assert taken == [(number, "ab"[number % 2]) for number in range(8)]
