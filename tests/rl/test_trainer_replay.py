"""A replay takes the steps of a trainer again from its files, and notices when a bit is other."""

import random

import pytest
from tiny_model import CONFIG, TOKENIZER

from arcforge.core.errors import UserError
from arcforge.core.trajectory import TokenSpan, Trajectory
from arcforge.model.initialise import new_model
from arcforge.rl.agentic_step import AgenticConfig, advance, digest
from arcforge.rl.buffer import BufferReader, BufferWriter
from arcforge.rl.ledger import Dispatch
from arcforge.rl.policy import Policy
from arcforge.rl.replay import commits, replay, written_digests

SETTINGS = AgenticConfig(steps=6, groups=2, group_size=3, publish_every=2, reset_optimizer=True, context=64)


def new_policy():
    return Policy(new_model(CONFIG, seed=4), SETTINGS.lr)


def rollout(group_id, member, rng):
    prompt, sampled = ([rng.randrange(5, 280) for _ in range(rng.randint(3, 9))] for _ in range(2))
    logprobs = [-rng.random() * 6 for _ in sampled]
    spans = [
        TokenSpan(ids=prompt, source="prompt"),
        TokenSpan(ids=sampled, source="model", logprobs=logprobs, version=0, trained=True),
    ]
    return Trajectory(
        rollout_id=f"{group_id}-{member}",
        group_id=group_id,
        family="letters",
        task_id=group_id,
        spans=spans,
        reward=float(rng.random() < 0.5),
    )


def trained(folder, steps, lose_after=None):
    """A trainer's life over groups that finish out of order. lose_after: it is killed after that many of its steps, its last
    two are lost, and it goes on from the state before them. Returns the digests by step."""
    rng, writer = random.Random(1), BufferWriter(folder, "agentic_rl")
    dispatches = [
        Dispatch(
            counter=n,
            group_id=f"letters-{n}",
            family="letters",
            index=n,
            rollout_ids=tuple(f"letters-{n}-{m}" for m in range(3)),
            version=0,
        )
        for n in range(2 * steps + 2)
    ]
    for dispatch in dispatches:
        writer.dispatch(dispatch)
    members = [(d.group_id, m) for d in dispatches for m in range(3)]
    rng.shuffle(members)
    for group_id, member in members:
        writer.finish(rollout(group_id, member, rng))
    policy, reader, step = new_policy(), BufferReader(folder, "agentic_rl"), 0
    digests, states = {0: digest(policy.model)}, {}
    while step < steps:
        states[step] = (policy.model.state_dict(), policy.optimizer.state_dict())
        states[step] = {part: _copied(values) for part, values in zip(("model", "optimizer"), states[step])}
        groups = reader.take(2, version=0)
        advance(SETTINGS, policy, groups, step, TOKENIZER.pad_id)
        step += 1
        reader.commit(step, [t.rollout_id for group in groups for t in group.members])
        digests[step] = digest(policy.model)
        if step == lose_after:
            step, lose_after = step - 2, None
            reader.close()
            policy = new_policy()
            policy.model.load_state_dict(states[step]["model"])
            policy.optimizer.load_state_dict(states[step]["optimizer"])
            reader = BufferReader(folder, "agentic_rl", step)
    reader.close()
    writer.close()
    return digests


def _copied(values):
    if isinstance(values, dict):
        return {name: _copied(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return type(values)(map(_copied, values))
    return values.clone() if hasattr(values, "clone") else values


@pytest.mark.parametrize("lose_after", [None, 4], ids=["undisturbed", "killed"])
def test_every_step_has_the_bits_of_the_run(tmp_path, lose_after):
    digests = trained(tmp_path, 5, lose_after)
    written = {step: value for step, value in digests.items() if step % 2 == 0}
    replayed = list(replay(SETTINGS, new_policy(), tmp_path, "agentic_rl", TOKENIZER.pad_id, written))
    assert {row.step: row.digest for row in replayed} == digests and len(set(digests.values())) == 6
    assert [row.equal for row in replayed] == [True, None, True, None, True, None]
    assert all(row.groups == 2 and row.rollouts == 6 for row in replayed[1:])


def test_other_settings_other_bits(tmp_path):
    digests = trained(tmp_path, 2)
    other = SETTINGS.model_copy(update={"eps_high": 1e-3})
    replayed = list(replay(other, new_policy(), tmp_path, "agentic_rl", TOKENIZER.pad_id, digests))
    assert [row.equal for row in replayed] == [True, False, False]


def test_a_lost_trajectory_is_named(tmp_path):
    trained(tmp_path, 1)
    (tmp_path / "agentic_rl-0.jsonl.zst").write_bytes(b"")
    with pytest.raises(UserError, match=r"no rollout letters-.*which was trained"):
        list(replay(SETTINGS, new_policy(), tmp_path, "agentic_rl", TOKENIZER.pad_id, {}))


def test_commits_whose_weights_were_lost_do_not_count():
    rows = [
        {"kind": "commit", "step": 1, "ids": ["a"]},
        {"kind": "commit", "step": 2, "ids": ["b"]},
        {"kind": "drop", "reason": "stale", "ids": ["c"]},
        {"kind": "rewind", "step": 1},
        {"kind": "commit", "step": 2, "ids": ["d"]},
    ]
    assert commits(rows) == {1: ["a"], 2: ["d"]}


def test_one_step_with_two_contents_is_refused():
    row = {"kind": "publish", "stage": "agentic_rl", "step": 3, "version": 3, "digest": "aa"}
    assert written_digests([row, {**row, "version": 4}, {"kind": "fork"}], "agentic_rl") == {3: "aa"}
    with pytest.raises(UserError, match="step 3 was published twice with different weights"):
        written_digests([row, {**row, "digest": "bb"}], "agentic_rl")
