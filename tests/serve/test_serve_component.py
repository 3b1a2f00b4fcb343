"""A real checkpoint served by `python -m arcforge.serve.main` as a process, spoken to by the project's own clients."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from small_checkpoints import small_checkpoints
from toy_engine import client, until

from arcforge.clients.arcforge import EngineControl, HttpTokenEngine, RewardClient
from arcforge.core.errors import EngineError
from arcforge.core.messages import Sampling
from arcforge.infer.engine import EngineConfig, load_engine
from arcforge.launch import heartbeat
from arcforge.serve.main import main

PROMPT = [21, 30, 41, 52, 63]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two sets of weights of one small model."""
    return small_checkpoints([tmp_path_factory.mktemp(f"weights{seed}") for seed in (1, 2)])


@dataclass
class Served:
    url: str
    process: subprocess.Popen[str]
    folder: Path


@pytest.fixture(scope="module")
def served(checkpoints: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    options = ["--port", "0", "--port-file", str(folder / "port"), "--heartbeat", str(folder / "beat")]
    options += ["--record", str(folder / "record.jsonl")]
    command = [sys.executable, "-m", "arcforge.serve.main", str(checkpoints[0]), "--version", "3", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            word, url = process.stdout.readline().split()  # "" and a ValueError when it died
            assert word == "ready"
            yield Served(url, process, folder)
        finally:
            if process.poll() is None:
                process.kill()


@asynccontextmanager
async def connected(served: Served) -> AsyncIterator[tuple[HttpTokenEngine, EngineControl]]:
    tokens, control = HttpTokenEngine(served.url, timeout=60), EngineControl([served.url], timeout=60)
    try:
        yield tokens, control
    finally:
        await tokens.close()
        await control.close()


def test_what_was_asked_is_in_the_record(served: Served) -> None:
    body = {"input_ids": PROMPT, "rid": "recorded", "sampling_params": {"max_new_tokens": 2, "stop_token_ids": []}}
    with client(served.url) as session:
        session.post("/generate", json=body).raise_for_status()
    rows = [json.loads(line) for line in (served.folder / "record.jsonl").read_text().splitlines()]
    (row,) = [row for row in rows if row["rid"] == "recorded"]
    assert row["prompt_tokens"] == len(PROMPT) and row["finish_reason"] == "length"
    assert row["weight_versions"] == [{"version": 3, "start": 0, "end": 2}]


async def until_running(control: EngineControl) -> None:
    async with asyncio.timeout(20):
        while not ((await control.health())[0] or {}).get("running"):
            await asyncio.sleep(0.02)


def test_it_says_where_it_is_and_beats(served: Served) -> None:
    assert served.url == f"http://127.0.0.1:{int((served.folder / 'port').read_text())}"
    age = heartbeat.age(served.folder / "beat")
    assert age is not None and age < 10


def test_the_client_gets_what_the_engine_says(served: Served, checkpoints: list[Path]) -> None:
    sampling = Sampling(max_tokens=12, temperature=0.7, seed=5)
    engine = load_engine(checkpoints[0], EngineConfig(max_running=4, max_length=256))
    engine.version = 3
    engine.add(PROMPT, sampling, "r")
    while engine.has_work:
        engine.step()
    expected = engine.result("r")

    async def scenario() -> None:
        async with connected(served) as (tokens, control):
            spans, reason = await tokens.generate(PROMPT, sampling, session="one")
            assert [(span.ids, span.version) for span in spans] == [(expected.spans[0].ids, 3)]
            assert spans[0].logprobs == pytest.approx(expected.spans[0].logprobs, abs=1e-5)
            assert reason == expected.finish_reason == "length"
            whole = PROMPT + spans[0].ids
            assert await tokens.score(whole) == pytest.approx(engine.score([whole])[0], abs=1e-5)
            assert await tokens.score([PROMPT[0]]) == []
            (health,) = await control.health()
            assert health is not None and health["version"] == 3 and health["running"] == 0

    asyncio.run(scenario())


def test_a_checkpoint_without_a_scalar_head_gives_no_rewards(served: Served) -> None:
    async def scenario() -> None:
        rewards = RewardClient(served.url)
        try:
            with pytest.raises(EngineError, match="scalar head"):
                await rewards.rewards([PROMPT])
        finally:
            await rewards.close()

    asyncio.run(scenario())


def test_chat_over_a_real_model(served: Served) -> None:
    body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 40, "return_token_ids": True, "seed": 1}
    body["stop_token_ids"] = []
    with client(served.url) as http:
        greedy = {**body, "temperature": 0}
        answer = http.post("/v1/chat/completions", json=greedy).json()
        with http.stream("POST", "/v1/chat/completions", json={**greedy, "stream": True}) as response:
            lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    assert answer["usage"]["completion_tokens"] == len(answer["choices"][0]["token_ids"]) > 0
    events = [httpx.Response(200, content=line.removeprefix("data: ")).json() for line in lines[:-1]]
    streamed = [i for event in events for choice in event["choices"] for i in choice.get("token_ids", ())]
    assert streamed == answer["choices"][0]["token_ids"]


def test_supplied_ids_get_the_same_log_probabilities_from_both_token_apis(served: Served) -> None:
    """Nothing is sampled; the training form of the model agrees to 1e-4."""
    ids = [(7 * i) % 200 + 20 for i in range(60)]
    with client(served.url) as http:
        scored = http.post("/score", json={"input_ids": ids}).json()["logprobs"]
        params = {"max_new_tokens": 0}
        body = {"input_ids": ids, "sampling_params": params, "logprob_start_len": 0}
        for _ in range(2):  # the second time they are in the prefix cache
            sglang = http.post("/generate", json=body).json()
            told = sglang["meta_info"]["input_token_logprobs"]
            assert sglang["output_ids"] == [] and [i for _, i, _ in told] == ids and told[0][0] is None
            assert [p for p, _, _ in told[1:]] == pytest.approx(scored, abs=1e-4)
        params = {"max_tokens": 0, "prompt_logprobs": 0}
        vllm = http.post("/inference/v1/generate", json={"token_ids": ids, "sampling_params": params}).json()
        assert vllm["choices"][0]["token_ids"] == [] and vllm["prompt_logprobs"][0] is None
        assert [row[str(i)]["logprob"] for row, i in zip(vllm["prompt_logprobs"][1:], ids[1:])] == pytest.approx(
            scored, abs=1e-4
        )


def test_both_token_apis_sample_the_same_and_tell_what_every_token_read(served: Served) -> None:
    def array(text: str) -> np.ndarray:
        return np.load(io.BytesIO(base64.b64decode(text)))

    wanted = {"return_routed_experts": True, "return_indexer_topk": True}
    common = {"temperature": 0.8, "top_k": 20, "min_p": 0.01, "seed": 3, "logit_bias": {"5": -100.0}}
    with client(served.url) as http:
        params = {**common, "max_new_tokens": 30, "stop_token_ids": []}
        body = {"input_ids": PROMPT, "sampling_params": params, "top_logprobs_num": 3, **wanted}
        sglang = http.post("/generate", json=body).json()
        params = {**common, "max_tokens": 30, "ignore_eos": True, "logprobs": 3}
        body = {"token_ids": PROMPT, "sampling_params": params, "request_id": "mine", **wanted}
        vllm = http.post("/inference/v1/generate", json=body).json()
    choice, meta = vllm["choices"][0], sglang["meta_info"]
    assert (
        vllm["request_id"] == "mine" and choice["token_ids"] == sglang["output_ids"] and 5 not in sglang["output_ids"]
    )
    entries = choice["logprobs"]["content"]
    assert [e["token"] for e in entries] == [f"token_id:{i}" for i in choice["token_ids"]]
    assert [e["logprob"] for e in entries] == pytest.approx([p for p, _, _ in meta["output_token_logprobs"]], abs=1e-5)
    assert all(e["rank"] is None or e["top_logprobs"][e["rank"] - 1]["token_id"] == e["token_id"] for e in entries)
    assert [len(top) for top in meta["output_top_logprobs"]] == [3] * 30
    length = len(PROMPT) + 30 - 1
    for told in (choice, meta):
        experts, selected = array(told["routed_experts"]), array(told["indexer_topk"])
        assert experts.shape == (length, 1, 2) and experts.max() < 4
        assert selected.shape == (length, 2, 16)
        assert all(row.max() <= t for t, row in enumerate(selected)) and (selected[-1] >= 0).all()


def test_streamed_tokens_are_those_of_one_answer(served: Served) -> None:
    params = {"max_new_tokens": 25, "stop_token_ids": [], "seed": 4}
    with client(served.url) as http:
        whole = http.post("/generate", json={"input_ids": PROMPT, "sampling_params": params}).json()
        body = {"input_ids": PROMPT, "sampling_params": params, "stream": True}
        with http.stream("POST", "/generate", json=body) as response:
            lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
        assert lines.pop() == "[DONE]"
        pieces = [json.loads(line) for line in lines]
        assert [i for piece in pieces for i in piece["output_ids"]] == whole["output_ids"] and len(pieces) > 5
        assert [piece["meta_info"]["finish_reason"] for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
        assert pieces[-1]["meta_info"]["finish_reason"] == {"type": "length"}
        assert pieces[-1]["meta_info"]["completion_tokens"] == 25
        samples = http.post("/generate", json={"input_ids": PROMPT, "sampling_params": {**params, "n": 3}}).json()
        assert samples[0]["output_ids"] == whole["output_ids"] and len({str(s["output_ids"]) for s in samples}) == 3


def test_two_hundred_clients_on_a_small_cache_and_some_that_leave(checkpoints: list[Path], tmp_path: Path) -> None:
    """They queue and are preempted; none is lost, and those that hang up leave no block behind."""
    options = ["--port", "0", "--max-length", "128", "--max-running", "16", "--cache-tokens", "512", "--drafts", "2"]
    command = [sys.executable, "-m", "arcforge.serve.main", str(checkpoints[0]), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    async def ask(http: httpx.AsyncClient, i: int) -> int | None:
        params = {"max_new_tokens": 20 + i % 60, "stop_token_ids": [], "seed": i}
        body = {"input_ids": [20 + (i * k) % 200 for k in range(1, 3 + i % 40)], "sampling_params": params}
        if i % 5:
            answer = await http.post("/generate", json=body)
            assert answer.status_code == 200, answer.text
            assert len(answer.json()["output_ids"]) == min(20 + i % 60, 128)
            return 1
        with contextlib.suppress(httpx.TimeoutException):
            await http.post("/generate", json=body, timeout=0.2)
        return None

    async def scenario(url: str) -> None:
        limits = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits, trust_env=False) as http:
            answers = await asyncio.gather(*(ask(http, i) for i in range(200)))
            assert sum(a or 0 for a in answers) == 160
            async with asyncio.timeout(20):
                while (await http.get("/health")).json()["running"]:
                    await asyncio.sleep(0.05)
            lines = dict(
                line.rsplit(" ", 1) for line in (await http.get("/metrics")).text.splitlines() if line[0] != "#"
            )
            assert float(lines["arcforge_engine_cache_used"]) == 0.0
            assert float(lines["arcforge_engine_preemptions"]) > 0
            assert float(lines["arcforge_request_seconds_count"]) >= 160

    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            asyncio.run(scenario(process.stdout.readline().split()[1]))
        finally:
            process.kill()


@pytest.mark.parametrize("thinking", ["enabled", "disabled"])
def test_a_forced_call_counts_the_callers_prompt_alone_as_cached(served: Served, thinking: str) -> None:
    """Its parts are requests of their own, each on the prefix that the one before has left in the cache."""
    properties = {name: {"type": "string"} for name in ("first", "second", "third")}
    tool = {
        "name": f"{thinking}_it",
        "input_schema": {"type": "object", "properties": properties, "required": [*properties]},
    }
    question = {"role": "user", "content": f"hello world {thinking} " * 8}
    body = {"messages": [question], "max_tokens": 150, "seed": 1, "thinking": {"type": thinking}, "tools": [tool]}
    with client(served.url) as http:
        fresh, again = (
            http.post("/v1/messages", json={**body, "tool_choice": {"type": "any"}}).json()["usage"] for _ in range(2)
        )
        prompt = http.post("/v1/messages/count_tokens", json={k: body[k] for k in ("messages", "tools", "thinking")})
    assert fresh["cache_read_input_tokens"] < 32, "what all prompts with these tools begin with"
    assert 0 <= again["input_tokens"] < 32 < again["cache_read_input_tokens"]
    for usage in (fresh, again):
        assert usage["input_tokens"] + usage["cache_read_input_tokens"] == prompt.json()["input_tokens"]


def test_new_weights_take_over_a_running_request(served: Served, checkpoints: list[Path]) -> None:
    async def scenario() -> None:
        async with connected(served) as (tokens, control):
            running = asyncio.create_task(tokens.generate(PROMPT, Sampling(max_tokens=400, seed=2)))
            await until_running(control)
            await control.update_weights(checkpoints[1], 4)
            spans, _ = await running
            assert [span.version for span in spans] == [3, 4]
            assert sum(len(span.ids) for span in spans) == 400
            with pytest.raises(EngineError, match="no such checkpoint folder"):
                await control.update_weights("/nowhere/at/all", 5)
            engine = load_engine(checkpoints[1], EngineConfig(max_running=4, max_length=256))
            assert await tokens.score(PROMPT) == pytest.approx(engine.score([PROMPT])[0], abs=1e-5)

    asyncio.run(scenario())


def test_a_client_retry_meets_a_paused_engine(served: Served) -> None:
    async def scenario() -> None:
        async with connected(served) as (tokens, control):
            await control.pause("keep")
            waiting = asyncio.create_task(tokens.generate(PROMPT, Sampling(max_tokens=2)))
            done, _ = await asyncio.wait({waiting}, timeout=0.3)
            assert not done
            await control.resume()
            assert (await waiting)[1] == "length"

    asyncio.run(scenario())


def test_sigterm_answers_running_requests_and_exits_0(served: Served) -> None:
    """Last in this file: it ends the shared process."""

    async def scenario() -> None:
        async with connected(served) as (tokens, control):
            running = asyncio.create_task(tokens.generate(PROMPT, Sampling(max_tokens=1000)))
            await until_running(control)
            served.process.send_signal(signal.SIGTERM)
            assert (await running)[1] in ("abort", "length")

    asyncio.run(scenario())
    until(lambda: served.process.poll() is not None)
    assert served.process.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["/nowhere/at/all"], "/nowhere/at/all"),
        (["/nowhere/at/all", "--port", "99999"], "port 99999"),
        (["/nowhere/at/all", "--host", "256.0.0.1"], "cannot listen there"),
        (["/nowhere/at/all", "--max-running", "0"], "max_running"),
    ],
)
def test_bad_arguments_are_told_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--port", "0", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("error: ")
    assert message in printed.err and printed.err.count("\n") == 1
