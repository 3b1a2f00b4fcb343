"""The token API and the control of one engine, over real loopback sockets."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from toy_engine import CAPACITY, ToyEngine, client, serving, until

from arcforge.chat.tokenizer import Tokenizer
from arcforge.core.errors import UserError
from arcforge.serve.limits import Limits
from arcforge.serve.listener import bind
from arcforge.serve.loop import EngineLoop
from arcforge.serve.server import build_app

ENDLESS = 1_000_000


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["hello world 1 2 3"], 300)


@pytest.fixture
def engine() -> ToyEngine:
    return ToyEngine()


@pytest.fixture
def http(engine: ToyEngine, tokenizer: Tokenizer) -> Iterator[httpx.Client]:
    loop = EngineLoop(engine, stuck_after=1.0)
    limits = Limits(max_body_bytes=200_000, max_batch=50, request_timeout=20)
    with serving(build_app(loop, tokenizer, "toy", limits), loop) as url, client(url) as session:
        yield session
        engine.gate.set()


def generate(http: httpx.Client, ids: list[int], rid: str = "mine", **params: Any) -> dict[str, Any]:
    params = {"stop_token_ids": [], **params}
    response = http.post("/generate", json={"input_ids": ids, "sampling_params": params, "rid": rid})
    assert response.status_code == 200, response.text
    return response.json()


def test_generate_speaks_the_wire_format(http: httpx.Client) -> None:
    assert generate(http, [1, 2, 3, 4], max_new_tokens=5, temperature=0.5, seed=3, stop_token_ids=[7]) == {
        "output_ids": [5, 6, 7],
        "meta_info": {
            "id": "mine",
            "finish_reason": {"type": "stop", "matched": 7},
            "output_token_logprobs": [[-1.0, 5, None], [-1.0, 6, None], [-1.0, 7, None]],
            "weight_versions": [{"version": 0, "start": 0, "end": 3}],
            "weight_version": "0",
            "prompt_tokens": 4,
            "completion_tokens": 3,
            "cached_tokens": 2,
        },
    }


def test_a_body_is_json_whatever_its_content_type_says(http: httpx.Client) -> None:
    for kind in ("application/x-www-form-urlencoded", "text/plain"):
        answer = http.post("/generate", content='{"input_ids": [1]}', headers={"content-type": kind})
        assert answer.status_code == 200


def test_stop_ids_default_to_the_models_own(http: httpx.Client, tokenizer: Tokenizer) -> None:
    stop = tokenizer.id("<|observation|>")
    for stops, reason in ((None, {"type": "stop", "matched": stop}), ([], {"type": "length"})):
        answer = generate(http, [stop - 1], max_new_tokens=4, stop_token_ids=stops)
        assert answer["meta_info"]["finish_reason"] == reason


def test_score_reward_and_models(http: httpx.Client, engine: ToyEngine) -> None:
    assert http.post("/score", json={"input_ids": [5, 6, 7]}).json() == {"logprobs": [-6.0, -7.0]}
    batch = {"batch": [[5, 6, 7], [1]]}
    assert http.post("/score", json=batch).json() == {"logprobs": [[-6.0, -7.0], []]}
    refused = http.post("/reward", json={"ids": [[1, 2]]})
    assert refused.status_code == 409 and "no scalar head" in refused.json()["error"]["message"]
    engine.reward_head = True
    assert http.post("/reward", json={"ids": [[1, 2], [3]]}).json() == {"rewards": [3.0, 3.0]}
    assert [model["id"] for model in http.get("/v1/models").json()["data"]] == ["toy"]


BAD = {
    "": "the request body: Field required",
    "{": "the request body is not JSON",
    "[1]": "the request body: Input should be a valid dictionary",
    '{"input_ids": []}': "input_ids: List should have at least 1 item",
    '{"input_ids": "1 2"}': "input_ids: Input should be a valid list",
    '{"input_ids": [1, true]}': "input_ids[1]: Input should be a valid integer",
    '{"input_ids": [1, 2.0]}': "input_ids[1]: Input should be a valid integer",
    '{"input_ids": [1, 5000]}': "outside 0..",
    '{"input_ids": [-1]}': "outside 0..",
    '{"input_ids": [1], "sampling_params": 3}': "sampling_params: Input should be a valid dictionary",
    '{"input_ids": [1], "sampling_params": {"max_tokens": 3}}': "sampling_params.max_tokens: Extra inputs",
    '{"input_ids": [1], "sampling_params": {"max_new_tokens": -1}}': "max_new_tokens: Input should be greater",
    '{"input_ids": [1], "sampling_params": {"max_new_tokens": 1.5}}': "max_new_tokens: Input should be a valid integer",
    '{"input_ids": [1], "sampling_params": {"temperature": "hot"}}': "temperature: Input should be a valid number",
    '{"input_ids": [1], "sampling_params": {"temperature": NaN}}': "temperature: Input should be a finite number",
    '{"input_ids": [1], "sampling_params": {"seed": 1' + "0" * 400 + "}}": "seed: Input should be less than",
    '{"input_ids": [1], "sampling_params": {"temperature": -1}}': "temperature: Input should be greater than or equal",
    '{"input_ids": [1], "sampling_params": {"top_p": 0}}': "top_p: Input should be greater than 0",
    '{"input_ids": [1], "sampling_params": {"frequency_penalty": 1.5}}': "frequency_penalty: Value error, not supported",
    '{"input_ids": [1], "sampling_params": {"logit_bias": {"a": 1}}}': "logit_bias: its keys are token ids",
    '{"input_ids": [1], "sampling_params": {"stop_token_ids": [999]}}': "stop_token_ids: a token id is outside",
    '{"input_ids": [1], "rid": 4}': "rid: Input should be a valid string",
    '{"input_ids": [1], "text": "hello"}': "text: Value error, not supported here",
    json.dumps({"input_ids": [1] * CAPACITY}): "do not fit",
    "[" * 50_000: "There was an error parsing the body",
}


@pytest.mark.parametrize("body", BAD, ids=lambda body: body[:60])
def test_a_bad_request_gets_400_and_one_message(http: httpx.Client, body: str) -> None:
    response = http.post("/generate", content=body)
    assert response.status_code == 400
    message = response.json()["error"]["message"]
    assert BAD[body] in message and "\n" not in message
    assert http.get("/health").status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/score", {}, "one of input_ids and batch"),
        ("/score", {"batch": [[1], []]}, "batch[1]"),
        ("/reward", {}, "ids: Field required"),
        ("/reward", {"ids": []}, "ids: a non-empty list of lists"),
        ("/pause", {}, "mode: Field required"),
        ("/pause", {"mode": "later"}, "mode: Input should be 'keep', 'wait' or 'abort'"),
        ("/update_weights", {"version": 1}, "folder"),
        ("/update_weights", {"folder": "/nowhere/at/all", "version": 1}, "no such checkpoint folder"),
        ("/update_weights", {"folder": "/"}, "version"),
        ("/update_weights", {"folder": "/", "version": 1}, "no config.json"),
    ],
)
def test_bad_control_requests(http: httpx.Client, path: str, body: dict[str, Any], message: str) -> None:
    response = http.post(path, json=body)
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]


def test_sizes_are_limited(http: httpx.Client) -> None:
    assert http.post("/generate", content=b"1" * 200_001).status_code == 413
    chunks = (b"1" * 50_000 for _ in range(5))  # no Content-Length to look at
    assert http.post("/generate", content=chunks).status_code == 413
    assert http.post("/score", json={"batch": [[1]] * 51}).status_code == 413
    assert http.post("/score", json={"batch": [[1]] * 50}).status_code == 200


def test_200_concurrent_requests(http: httpx.Client, engine: ToyEngine) -> None:
    async def batch(first: int) -> list[httpx.Response]:
        # Ten clients of twenty connections: the work of one httpx pool grows with the square of its connections.
        async with httpx.AsyncClient(base_url=http.base_url, timeout=30, trust_env=False, verify=tls) as session:
            params = {"max_new_tokens": 20, "stop_token_ids": []}
            bodies = [
                {"input_ids": [i % 100], "sampling_params": params, "rid": f"r{i}"} for i in range(first, first + 20)
            ]
            return await asyncio.gather(*(session.post("/generate", json=body) for body in bodies))

    async def scenario() -> list[httpx.Response]:
        return [response for group in await asyncio.gather(*map(batch, range(0, 200, 20))) for response in group]

    tls = ssl.create_default_context()
    for i, response in enumerate(asyncio.run(scenario())):
        assert response.json()["output_ids"] == [(i % 100 + 1 + k) % 100 for k in range(20)]
        assert response.json()["meta_info"]["id"] == f"r{i}"
    assert not engine.has_work


def test_a_weight_update_in_the_middle_of_a_request_shows_in_its_versions(
    http: httpx.Client, engine: ToyEngine, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("{}")
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(generate, http, [1], max_new_tokens=ENDLESS)
        until(lambda: engine.stats["tokens"] > 10)
        assert http.post("/update_weights", json={"folder": str(tmp_path), "version": 4}).json() == {"version": 4}
        before = engine.stats["tokens"]
        until(lambda: engine.stats["tokens"] > before + 10)
        assert http.get("/health").json()["version"] == 4
        assert http.post("/abort", json={"rid": "mine"}).json() == {"aborted": True}
        meta = answer.result(20)["meta_info"]
    first, second = meta["weight_versions"]
    assert (first["version"], first["start"], second["version"]) == (0, 0, 4)
    assert first["end"] == second["start"] > 0
    assert second["end"] == meta["completion_tokens"] == len(meta["output_token_logprobs"])
    logprobs = [logprob for logprob, _, _ in meta["output_token_logprobs"]]
    assert logprobs == [-1.0] * first["end"] + [-5.0] * (second["end"] - second["start"])
    assert meta["finish_reason"] == {"type": "abort"}


def test_pause_and_resume(http: httpx.Client, engine: ToyEngine) -> None:
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(generate, http, [1], max_new_tokens=ENDLESS)
        until(lambda: engine.running == 1)
        assert http.post("/pause", json={"mode": "keep"}).json() == {"paused": "keep"}
        frozen = engine.stats["tokens"]
        time.sleep(0.1)
        assert engine.stats["tokens"] == frozen
        assert http.get("/health").json()["paused"] == "keep"
        assert http.post("/resume").json() == {"paused": ""}
        until(lambda: engine.stats["tokens"] > frozen)
        assert http.post("/pause", json={"mode": "abort"}).status_code == 200
        assert answer.result(20)["meta_info"]["finish_reason"] == {"type": "abort"}
        held = pool.submit(http.post, "/generate", json={"input_ids": [1], "sampling_params": {"max_new_tokens": 1}})
        until(lambda: http.get("/health").json()["waiting"] == 1)
        http.post("/resume")
        assert held.result(20).status_code == 200


def test_the_other_servers_names_for_control(http: httpx.Client, engine: ToyEngine) -> None:
    """vLLM's mode is in the query, SGLang's in_place is our keep."""
    assert http.get("/is_paused").json() == {"is_paused": False}
    for path, body in (("/pause?mode=keep", None), ("/pause_generation", {"mode": "in_place"})):
        assert http.post(path, json=body).json()["paused"] == "keep"
        assert http.get("/is_paused").json() == {"is_paused": True}
        assert http.post("/continue_generation").json()["paused"] == ""
    assert http.post("/pause").status_code == 400
    for path in ("/flush_cache", "/reset_prefix_cache"):
        assert http.post(path).json() == {"success": True}
    assert engine.flushed == 2


def test_a_client_that_hangs_up_frees_the_engine(http: httpx.Client, engine: ToyEngine) -> None:
    params = {"max_new_tokens": ENDLESS, "stop_token_ids": []}
    with pytest.raises(httpx.ReadTimeout):
        http.post("/generate", json={"input_ids": [1], "sampling_params": params}, timeout=0.3)
    assert engine.stats["tokens"] > 0
    until(lambda: not engine.has_work)


def test_a_stuck_engine_makes_health_503_and_recovery_makes_it_200(http: httpx.Client, engine: ToyEngine) -> None:
    engine.gate.clear()
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(generate, http, [1], max_new_tokens=3)
        until(lambda: http.get("/health").status_code == 503)
        problem = http.get("/health").json()["error"]
        assert problem["type"] == "unhealthy" and "has not come back" in problem["message"]
        assert "arcforge_healthy 0.0" in http.get("/metrics").text
        engine.gate.set()
        assert answer.result(20)["output_ids"] == [2, 3, 4]
    assert http.get("/health").status_code == 200


def test_an_engine_that_raises_fails_its_requests_and_health(http: httpx.Client, engine: ToyEngine) -> None:
    engine.failing = True
    for _ in range(2):
        response = http.post("/generate", json={"input_ids": [1]})
        assert response.status_code == 503
        assert response.json()["error"]["type"] == "engine_error"
        assert "out of memory" in response.json()["error"]["message"]
    assert http.get("/health").status_code == 503


def test_metrics_count(http: httpx.Client) -> None:
    generate(http, [1, 2, 3, 4], max_new_tokens=5)
    lines = dict(line.split() for line in http.get("/metrics").text.splitlines() if not line.startswith("#"))
    assert lines["arcforge_requests_total"] == "1.0"
    assert lines["arcforge_prompt_tokens_total"] == "4.0"
    assert lines["arcforge_completion_tokens_total"] == lines["arcforge_engine_tokens"] == "5.0"
    assert lines["arcforge_healthy"] == "1.0"


def test_stopping_answers_running_requests(engine: ToyEngine, tokenizer: Tokenizer) -> None:
    loop = EngineLoop(engine)
    with ThreadPoolExecutor() as pool, serving(build_app(loop, tokenizer, "toy"), loop) as url:
        session = client(url)
        answer = pool.submit(generate, session, [1], max_new_tokens=ENDLESS)
        until(lambda: engine.running == 1)
    assert answer.result(20)["meta_info"]["finish_reason"] == {"type": "abort"}
    assert not any(thread.name == "engine" for thread in threading.enumerate())


def test_a_port_in_use_is_a_user_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError, match="cannot listen there"):
        bind("127.0.0.1", taken.getsockname()[1])


def test_a_client_that_hangs_up_while_sending_hurts_nobody(
    http: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_connection((http.base_url.host, http.base_url.port or 0)) as half:
        half.sendall(b"POST /generate HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{")
    assert http.get("/health").status_code == 200
    assert not caplog.records


def test_weights_are_loaded_and_labelled_under_the_other_servers_names(
    http: httpx.Client, engine: ToyEngine, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert http.get("/model_info").json()["weight_version"] == http.get("/weight_info").json()["weight_version"] == "0"
    body = {"model_path": str(tmp_path), "weight_version": "4"}
    assert http.post("/update_weights_from_disk", json=body).json()["success"] is True
    assert engine.version == 4 and engine.flushed == 1
    assert http.post("/update_weights_from_disk", json={"model_path": str(tmp_path), "flush_cache": False}).is_success
    assert engine.version == 4 and engine.flushed == 1
    rpc = {"method": "reload_weights", "kwargs": {"weights_path": str(tmp_path)}}
    assert http.post("/collective_rpc", json=rpc).json() == {"results": [None]}
    assert engine.version == 4
    assert http.post("/update_weight_version", json={"new_version": "7"}).is_success
    assert http.get("/weight_info").json() == {"weight_version": "7"}
    for path, wrong in (
        ("/update_weights_from_disk", {"model_path": "/nowhere/at/all"}),
        ("/update_weights_from_disk", {"model_path": str(tmp_path), "weight_version": "new"}),
        ("/collective_rpc", {"method": "sleep"}),
        ("/collective_rpc", {"method": "reload_weights"}),
        ("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": "/nowhere/at/all"}}),
        ("/update_weight_version", {"new_version": "-1"}),
    ):
        refused = http.post(path, json=wrong)
        assert refused.status_code == 400 and refused.json()["error"]["message"], path
    assert engine.version == 7


def test_requests_are_aborted_under_the_other_servers_names(http: httpx.Client, engine: ToyEngine) -> None:
    with ThreadPoolExecutor() as pool:
        for path, body in (
            ("/abort_request", {"rid": "r0"}),
            ("/abort_request", {"abort_all": True}),
            ("/inference/v1/abort_requests", {"request_ids": ["generate-tokens-r0", "r1"]}),
            ("/inference/v1/abort_requests", {}),
        ):
            asked = [pool.submit(generate, http, [1], rid=f"r{i}", max_new_tokens=ENDLESS) for i in range(2)]
            until(lambda: engine.running == 2)
            assert http.post(path, json=body).json()["aborted"] == (1 if body == {"rid": "r0"} else 2)
            http.post("/abort_request", json={"abort_all": True})
            assert {one.result(20)["meta_info"]["finish_reason"]["type"] for one in asked} == {"abort"}
