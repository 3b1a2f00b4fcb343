"""Task to training rows, whole: orchestrator, attempt, gateway, buffer, samples; the engine alone is scripted."""

import asyncio
import random

import numpy as np

from arcforge.chat.tokenizer import Tokenizer
from arcforge.clients.scripted import ScriptedTokenEngine
from arcforge.core.errors import SandboxError
from arcforge.core.messages import Message, Thinking, ToolSpec
from arcforge.core.protocols import Verdict
from arcforge.rl.advantages import agentic
from arcforge.rl.buffer import BufferReader, BufferWriter
from arcforge.rl.gateway import Gateway
from arcforge.rl.orchestrator import MultiTaskOrchestrator, OrchestratorConfig, TaskEntry
from arcforge.rl.publish import Publisher
from arcforge.rl.runners import FamilyRunner
from arcforge.rl.samples import build_batch, group_samples
from arcforge.rollout.attempt import attempt

TOKENIZER = Tokenizer.train(["press the button until the light is on, then say done"] * 4, 300)


class Lamp:
    """The button works half of the time; pressed 13 times over all lamps, the wiring breaks once."""

    pressed, rng = 0, random.Random(5)

    def __init__(self):
        self.lit, self.done = False, False

    async def call(self, call):
        Lamp.pressed += 1
        if Lamp.pressed == 13:
            raise SandboxError("the wiring broke")
        self.lit = self.lit or self.rng.random() < 0.5
        return "on" if self.lit else "off"

    async def grade(self, messages):
        return Verdict(reward=float(self.lit))

    async def close(self):
        pass


class PressTask:
    family, domain, thinking, max_turns, max_tokens = "lamp", "lamp", Thinking(), 4, 40
    messages = (Message(role="user", content="press the button"),)
    tools = (ToolSpec(name="press", parameters={"type": "object", "properties": {}}),)

    def __init__(self, index):
        self.task_id = f"lamp/{index}"

    async def open(self):
        return Lamp()


class Lamps:
    name, domains = "lamp", ("lamp",)

    def task(self, split, index):
        return PressTask(index)


def sample_turn(prompt, sampling):
    """Presses or says done, as the seed and the number of the turn decide."""
    turn = list(prompt).count(TOKENIZER.id("<|assistant|>"))
    names = ["</think>", "done", "<|user|>"]
    if random.Random(f"{sampling.seed}/{turn}").random() < 0.6:
        names = ["then", "</think>", "<tool_call>", "press", "</tool_call>", "<|observation|>"]
    return [
        i for name in names for i in ([TOKENIZER.id(name)] if name in TOKENIZER.control else TOKENIZER.encode(name))
    ]


def test_rollouts_become_rows_whose_every_token_the_engine_saw(tmp_path):
    Publisher(tmp_path / "weights").publish(0, lambda folder: None)
    engine = ScriptedTokenEngine(sample_turn)
    Lamp.pressed = 0

    async def stage():
        orchestrator = MultiTaskOrchestrator(
            [TaskEntry(FamilyRunner(Lamps(), attempt, Gateway(engine, TOKENIZER, max_context=400)), group_size=4)],
            BufferWriter(tmp_path, "agentic"),
            tmp_path / "weights",
            OrchestratorConfig(batch=4, max_staleness=0, concurrency=8),
            stop_file=tmp_path / "stop",
            heartbeat=tmp_path / "beat",
        )
        reader = BufferReader(tmp_path, "agentic")
        running = asyncio.create_task(orchestrator.run())
        async with asyncio.timeout(30):
            while not (groups := reader.take(4, version=0, max_staleness=lambda family: 0)):
                await asyncio.sleep(0.01)
        (tmp_path / "stop").touch()
        return groups, reader, await running

    groups, reader, counts = asyncio.run(stage())
    assert counts.balanced and counts.failed == {"sandbox": 1} and counts.in_flight == 0
    samples = [
        sample
        for group in groups
        for sample in group_samples(
            group.members, [a for a in agentic([t.reward for t in group.members]) if a is not None], len(groups)
        )
    ]
    assert sum(len(group.members) for group in groups) == 15 == len(samples)
    batch = build_batch(samples, length=512, pad_id=TOKENIZER.pad_id)
    seen = {tuple(prompt) for prompt in engine.prompts}
    for sample in samples:
        last = int(np.flatnonzero(np.diff(sample.mask.astype(int)) == 1)[-1]) + 1
        assert tuple(sample.ids[:last].tolist()) in seen
    assert batch.rows.loss_mask.any() and np.isclose(batch.weights.sum(), 1)
    assert len({t.reward for group in groups for t in group.members}) == 2 and np.abs(batch.advantages).max() > 0
    reader.commit(1, [t.rollout_id for group in groups for t in group.members])
    assert reader.ledger.counts().trained == 15 and reader.ledger.groups("trained") == 4
