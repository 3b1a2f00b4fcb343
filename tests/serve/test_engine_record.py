"""`--record`: a server's own account of its token requests, which proves what a gateway recorded from afar."""

import asyncio
import hashlib
import json
import struct

import pytest
from scripted_server import Script, call, ids_of, new_tokenizer
from toy_engine import ToyEngine, client, serving

from arcforge.clients.arcforge import EngineControl, HttpTokenEngine
from arcforge.core.messages import Message, ToolSpec
from arcforge.core.protocols import CompletionRequest
from arcforge.core.trajectory import Trajectory
from arcforge.rl.gateway import Gateway
from arcforge.rl.verify import verify
from arcforge.rollout.record import TrajectoryWriter
from arcforge.serve.loop import EngineLoop
from arcforge.serve.record import EngineRecord
from arcforge.serve.server import build_app

TOKENIZER = new_tokenizer()
CALL = ("it", "</think>", "hello", *call("add", a="2"), "<|observation|>")
ANSWER = ("about it", "</think>", "hello world", "<|user|>")


def sha256(ids):
    return hashlib.sha256(struct.pack(f"<{len(ids)}i", *ids)).hexdigest()


@pytest.fixture
def served(tmp_path):
    script = Script(TOKENIZER)
    script.write(CALL, CALL, ANSWER)
    engine = ToyEngine(script.next_id)
    loop = EngineLoop(engine)
    path = tmp_path / "stages" / "08-agentic_rl" / "engine-0.jsonl"
    with serving(build_app(loop, TOKENIZER, "toy", record=EngineRecord(path)), loop) as url:
        yield url, path


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_both_shapes_streamed_or_not_write_a_line_each(served):
    url, path = served
    prompt = [TOKENIZER.id("<|assistant|>"), TOKENIZER.id("<think>")]
    body = {"input_ids": prompt, "rid": "r-0", "sampling_params": {"max_new_tokens": 3}}
    shaped = {"token_ids": prompt, "request_id": "r-2", "sampling_params": {"max_tokens": 3, "n": 2}}
    with client(url) as session:
        whole = session.post("/generate", json=body).json()["output_ids"]
        session.post("/generate", json={**body, "rid": "r-1", "stream": True})
        session.post("/inference/v1/generate", json=shaped)
        session.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "hello"}]})
        session.post("/generate", json={**body, "rid": "refused", "input_ids": [-1]})
    written = rows(path)
    assert [row["rid"] for row in written[:2]] == ["r-0", "r-1"]
    assert sorted(row["rid"] for row in written[2:]) == ["r-2-0", "r-2-1"]
    assert {json.dumps({k: v for k, v in row.items() if k != "rid"}) for row in written} == {
        json.dumps(
            {
                "prompt_tokens": 2,
                "prompt_sha256": sha256(prompt),
                "output_tokens": 3,
                "output_sha256": sha256(whole),
                "weight_versions": [{"version": 0, "start": 0, "end": 3}],
                "finish_reason": "length",
            }
        )
    }


def test_what_a_gateway_recorded_over_http_is_proven_by_it(served, tmp_path):
    """Three turns, new weights between them; the trajectory alone is then tampered with."""
    url, path = served
    tools = (ToolSpec(name="add", parameters={"type": "object", "properties": {"a": {"type": "integer"}}}),)

    (weights := tmp_path / "weights").mkdir()
    (weights / "config.json").write_text("{}")

    async def rollout():
        engine, control = HttpTokenEngine(url, timeout=20), EngineControl([url])
        gateway = Gateway(engine, TOKENIZER, 4096)
        gateway.open("swe-000001-0")
        messages = [Message(role="user", content="hello")]
        for version in (1, 2, 3):
            await control.update_weights(weights, version)
            request = CompletionRequest(messages=tuple(messages), tools=tools, session="swe-000001-0")
            messages += [(await gateway.complete(request)).message, Message(role="tool", content="4")]
        await engine.close()
        await control.close()
        return gateway.close("swe-000001-0")

    (spans,) = asyncio.run(rollout())
    assert [span.version for span in spans if span.source == "model"] == [1, 2, 3]
    assert [row["output_sha256"] for row in rows(path)] == [sha256(ids_of(TOKENIZER, *t)) for t in (CALL, CALL, ANSWER)]
    file = tmp_path / "trajectories" / "agentic_rl-0.jsonl.zst"
    trajectory = Trajectory(rollout_id="swe-000001-0", family="swe", task_id="swe/1", spans=spans, reward=1.0)
    with TrajectoryWriter(file) as writer:
        writer.append(trajectory)
    (check,) = verify(tmp_path)
    assert (check.verified, check.faults, check.unused) == (3, [], 0)
    spans[3].ids[0] += 1
    with TrajectoryWriter(file) as writer:
        file.write_bytes(b"")
        writer.append(trajectory)
    (check,) = verify(tmp_path)
    assert check.verified == 1 and [fault.turn for fault in check.faults] == [2, 3]
