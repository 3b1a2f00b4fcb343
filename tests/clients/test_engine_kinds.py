"""The engines of each kind of server: what is sent, where the weights change in an answer, what a failed update leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_pair import engine_pair
from loopback import LoopbackServer
from toy_sglang import ToySglang

from arcforge.clients.engines import Servers, engine_control, token_engine
from arcforge.clients.sglang import Interruptions, SglangControl, SglangEngine
from arcforge.clients.token_client import Control
from arcforge.clients.vllm import VllmControl, VllmEngine
from arcforge.core.errors import EngineError, UserError
from arcforge.core.messages import Sampling
from arcforge.core.protocols import TokenEngine

SAMPLING = Sampling(max_tokens=5, temperature=0.5, top_p=0.9, top_k=7, seed=3, stop_ids=(0, 4), logit_bias={9: 1.5})
LONG = Sampling(max_tokens=150)


@pytest.fixture
def sglang() -> Iterator[ToySglang]:
    running = ToySglang()
    running.start()
    yield running
    running.stop()


def vllm_answer(ids, versions, finish="stop"):
    content = [{"token_id": i, "logprob": -0.5 * n, "rank": 1, "top_logprobs": []} for n, i in enumerate(ids)]
    choice = {"index": 0, "finish_reason": finish, "stop_reason": None, "token_ids": ids, "weight_versions": versions}
    return {"request_id": "x", "choices": [{**choice, "logprobs": {"content": content}}], "usage": None}


@pytest.mark.parametrize("kind", ["arcforge", "vllm", "sglang"])
def test_every_kind_is_an_engine_and_its_control(kind, server: LoopbackServer) -> None:
    engine, control = engine_pair(kind, [server.url])
    assert isinstance(engine, TokenEngine) and isinstance(control, Control)


def test_a_kind_or_an_address_that_is_none() -> None:
    for address in ("tgi:http://x", "http://x", "vllm:x:80", "vllm"):
        with pytest.raises(UserError, match=f"'{address}': write KIND:http://HOST:PORT.*arcforge, vllm, sglang"):
            Servers.read([address])
    with pytest.raises(UserError, match="at least one"):
        Servers.read([])
    with pytest.raises(UserError, match="several kinds"):
        Servers.read(["vllm:http://x", "sglang:http://y"])
    found = Servers.read(["vllm:http://x:8000/", "vllm:https://y"])
    assert found == Servers(kind="vllm", urls=("http://x:8000", "https://y"))


def test_vllm_is_asked_in_its_words_and_its_labels_become_versions(server: LoopbackServer) -> None:
    versions = [{"version": "default", "start": 0, "end": 2}, {"version": "8", "start": 2, "end": 3}]
    server.handler = lambda path, body: vllm_answer([9, 8, 4], versions)
    spans, finish = asyncio.run(VllmEngine(server.url, 5, base_version=6).generate([1, 2], SAMPLING, "swe-1"))
    assert finish == "stop"
    assert [(s.ids, s.logprobs, s.version) for s in spans] == [([9, 8], [0.0, -0.5], 6), ([4], [-1.0], 8)]
    path, body, headers = server.requests[0]
    assert path == "/inference/v1/generate" and headers["x-session-id"] == "swe-1"
    assert body["token_ids"] == [1, 2] and body["request_id"].startswith("swe-1-")
    assert body["sampling_params"] == {
        "max_tokens": 5,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 7,
        "seed": 3,
        "stop_token_ids": [0, 4],
        "ignore_eos": True,
        "logprobs": 0,
        "logit_bias": {"9": 1.5},
    }


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (vllm_answer([1], None), "no weight_versions"),
        (vllm_answer([1], [{"version": "final", "start": 0, "end": 1}]), "final"),
        (vllm_answer([1, 2], [{"version": "1", "start": 0, "end": 1}]), "do not cover"),
        ({"choices": []}, "IndexError"),
        (None, "TypeError"),
    ],
)
def test_answers_of_vllm_without_known_versions_are_errors(server: LoopbackServer, answer, told) -> None:
    server.handler = lambda path, body: answer
    with pytest.raises(EngineError, match=f"/inference/v1/generate: unexpected answer: .*{told}"):
        asyncio.run(VllmEngine(server.url, 5).generate([1], SAMPLING))


def test_a_token_without_a_log_probability_is_an_error(server: LoopbackServer) -> None:
    answer = vllm_answer([1], [{"version": "1", "start": 0, "end": 1}])
    answer["choices"][0]["logprobs"]["content"][0]["logprob"] = -9999.0
    server.handler = lambda path, body: answer
    with pytest.raises(EngineError, match="without a log-probability"):
        asyncio.run(VllmEngine(server.url, 5).generate([1], SAMPLING))


def test_vllm_loads_and_is_labelled_while_it_is_paused(server: LoopbackServer, other_server: LoopbackServer) -> None:
    paths: list[str] = []
    server.handler = lambda path, body: paths.append(path) or {"success": True}
    other_server.handler = lambda path, body: {"success": True}

    async def scenario() -> None:
        control = VllmControl([server.url, other_server.url], 5)
        await control.update_weights("/weights/4", 4)
        await control.pause("wait")
        await control.update_weights("/weights/5", 5)
        await control.resume()
        await control.close()

    asyncio.run(scenario())
    load = ["/collective_rpc", "/reset_prefix_cache", "/update_weight_version"]
    assert paths == ["/pause", *load, "/resume", "/pause", *load, "/resume"]
    assert [path for path, _, _ in other_server.requests] == paths
    bodies = [body for _, body, _ in server.requests]
    assert bodies[1] == {"method": "reload_weights", "kwargs": {"weights_path": "/weights/4"}}
    assert bodies[3] == {"new_version": "4"}


def test_a_vllm_whose_update_failed_stays_paused(server: LoopbackServer) -> None:
    server.handler = lambda path, body: (500, {"error": "no such file"}, {}) if path == "/collective_rpc" else {}
    with pytest.raises(EngineError, match="/collective_rpc: 500: no such file"):
        asyncio.run(VllmControl([server.url], 5).update_weights("/weights/4", 4))
    assert [path for path, _, _ in server.requests] == ["/pause", "/collective_rpc"]


def test_a_vllm_without_control_says_how_to_get_it(server: LoopbackServer) -> None:
    server.handler = lambda path, body: (404, {"detail": "Not Found"}, {})
    with pytest.raises(EngineError, match=r"/pause.*404: Not Found; start vLLM with VLLM_SERVER_DEV_MODE=1"):
        asyncio.run(VllmControl([server.url], 5).pause())


def test_health_tells_the_version(server: LoopbackServer, sglang: ToySglang, closed_port: str) -> None:
    server.handler = lambda path, body: (200, "", {}) if path == "/health" else {"weight_version": "12"}

    async def scenario() -> None:
        assert await VllmControl([server.url, closed_port], 5).health() == [{"version": 12}, None]
        assert await SglangControl([sglang.url], 5).health() == [{"version": None}]
        server.handler = lambda path, body: (503, "", {})
        assert await VllmControl([server.url], 5).health() == [None]

    asyncio.run(scenario())


def test_sglang_is_asked_in_its_words(sglang: ToySglang) -> None:
    spans, finish = asyncio.run(SglangEngine(sglang.url, 5, base_version=2).generate([1, 2], SAMPLING, "swe-1"))
    assert finish == "length" and [(s.ids, s.version) for s in spans] == [([100] * 5, 2)]
    _, body, headers = sglang.requests[0]
    assert headers["x-smg-routing-key"] == headers["x-session-id"] == "swe-1"
    params = body["sampling_params"]
    assert params["sampling_seed"] == 3 and "seed" not in params and params["top_k"] == 7
    assert params["no_stop_trim"] is True and params["skip_special_tokens"] is False


async def until_running(server: ToySglang, count: int) -> None:
    async with asyncio.timeout(10):
        while len(server.running) < count:
            await asyncio.sleep(0.005)
    await asyncio.sleep(0.05)


def test_an_update_of_sglang_splits_the_answers_exactly_where_the_weights_changed(sglang: ToySglang) -> None:
    """Though an answer tells one version alone: that of its end."""

    async def scenario() -> None:
        engine, control = engine_pair("sglang", [sglang.url], timeout=20)
        running = [asyncio.create_task(engine.generate([1], LONG, f"r{i}")) for i in range(3)]
        await until_running(sglang, 3)
        await control.update_weights("/weights/7", 7)
        await asyncio.sleep(0.05)
        await control.update_weights("/weights/8", 8)
        for spans, finish in await asyncio.gather(*running):
            assert finish == "length" and [span.version for span in spans] == [0, 7, 8]
            assert all(i == 100 + span.version for span in spans for i in span.ids)
            assert sum(len(span.ids) for span in spans) == LONG.max_tokens
        (spans, _) = await engine.generate([1], SAMPLING)
        assert [span.version for span in spans] == [8]
        await engine.close()
        await control.close()

    asyncio.run(scenario())
    control = [path for path in sglang.calls if path != "/generate"]
    assert control == ["/pause_generation", "/update_weights_from_disk", "/continue_generation"] * 2


def test_a_kept_request_goes_on_and_an_aborted_one_ends(sglang: ToySglang) -> None:
    async def scenario() -> None:
        engine, control = engine_pair("sglang", [sglang.url], timeout=20)
        running = asyncio.create_task(engine.generate([1], LONG))
        await until_running(sglang, 1)
        await control.pause("keep")
        assert not running.done()
        await control.resume()
        spans, finish = await running
        assert finish == "length" and [len(span.ids) for span in spans] == [LONG.max_tokens]
        running = asyncio.create_task(engine.generate([1], LONG))
        await until_running(sglang, 1)
        await control.pause("abort")
        spans, finish = await running
        assert finish == "abort" and 0 < len(spans[0].ids) < LONG.max_tokens
        await control.resume()
        with pytest.raises(UserError, match="wait"):
            await control.pause("wait")

    asyncio.run(scenario())


def test_engine_and_control_of_sglang_in_two_processes_know_of_each_other_by_a_file(
    sglang: ToySglang, tmp_path: Path
) -> None:
    """As the orchestrator and a task worker do; a control that died in an update is followed by another."""
    servers, file = Servers(kind="sglang", urls=(sglang.url,)), tmp_path / "interruptions.json"

    async def scenario() -> None:
        engine = token_engine(servers, 20, interruptions=Interruptions(file))
        running = asyncio.create_task(engine.generate([1], LONG))
        await until_running(sglang, 1)
        await engine_control(servers, 20, Interruptions(file)).pause("keep")  # and never resumes
        control = engine_control(servers, 20, Interruptions(file))
        await control.update_weights("/weights/7", 7)
        spans, finish = await running
        assert finish == "length" and [span.version for span in spans] == [0, 7]
        assert (Interruptions(file).begun, Interruptions(file).over) == (2, 2)
        await engine.close()
        await control.close()

    asyncio.run(scenario())


def test_a_request_that_somebody_else_aborts_is_not_sent_again(sglang: ToySglang) -> None:
    async def scenario() -> None:
        engine, control = engine_pair("sglang", [sglang.url], timeout=20)
        await control.update_weights("/weights/1", 1)
        running = asyncio.create_task(engine.generate([1], LONG))
        await until_running(sglang, 1)
        (rid,) = sglang.running
        sglang.running[rid].set()
        assert (await running)[1] == "abort"

    asyncio.run(scenario())


def test_an_sglang_whose_update_failed_samples_nothing(sglang: ToySglang) -> None:
    async def scenario() -> None:
        engine, control = engine_pair("sglang", [sglang.url], timeout=20)
        running = asyncio.create_task(engine.generate([1], LONG))
        await until_running(sglang, 1)
        with pytest.raises(EngineError, match="/update_weights_from_disk: 400: cannot load"):
            await control.update_weights("/weights/broken", 1)
        await asyncio.sleep(0.1)
        assert not running.done() and not sglang.running
        await control.update_weights("/weights/2", 2)
        spans, _ = await running
        assert [span.version for span in spans] == [0, 2]

    asyncio.run(scenario())


@pytest.mark.parametrize(("ids", "finish"), [([9, 4], "stop"), ([9, 8, 7, 6, 5], "length")])
def test_the_step_that_sglang_takes_after_an_abort_may_complete_the_answer(server: LoopbackServer, ids, finish) -> None:
    interruptions = Interruptions()

    def answer(path, body):
        interruptions.begin()
        meta = {"finish_reason": {"type": "abort"}, "weight_version": "1"}
        return {"output_ids": ids, "meta_info": {**meta, "output_token_logprobs": [[-1.0, i, None] for i in ids]}}

    server.handler = answer
    spans, told = asyncio.run(SglangEngine(server.url, 5, interruptions).generate([1], SAMPLING))
    assert told == finish and spans[0].ids == ids and len(server.requests) == 1


def test_a_request_aborted_before_its_first_token_is_sent_again(server: LoopbackServer) -> None:
    interruptions = Interruptions()
    interruptions.begin()
    early = {"text": "", "meta_info": {"finish_reason": {"type": "abort", "message": "Abort before prefill"}}}
    meta = {"finish_reason": {"type": "stop"}, "weight_version": "3", "output_token_logprobs": [[-1.0, 4, None]]}
    answers = [early, {"output_ids": [4], "meta_info": meta}]
    server.handler = lambda path, body: answers.pop(0)
    spans, finish = asyncio.run(SglangEngine(server.url, 5, interruptions).generate([1, 2], SAMPLING))
    assert finish == "stop" and [(s.ids, s.version) for s in spans] == [([4], 3)]
    assert [body["input_ids"] for _, body, _ in server.requests] == [[1, 2]] * 2


def test_sglang_that_tells_every_tokens_version_is_believed(server: LoopbackServer) -> None:
    meta = {"finish_reason": {"type": "length"}, "weight_version": "8"}
    meta["weight_versions"] = [{"version": "default", "start": 0, "end": 1}, {"version": "8", "start": 1, "end": 2}]
    meta["output_token_logprobs"] = [[-1.0, 5, None], [-2.0, 6, None]]
    server.handler = lambda path, body: {"output_ids": [5, 6], "meta_info": meta}
    spans, _ = asyncio.run(SglangEngine(server.url, 5).generate([1], SAMPLING))
    assert [(s.ids, s.version) for s in spans] == [([5], 0), ([6], 8)]


def test_scores_of_vllm_and_sglang_are_of_all_ids_but_the_first(server: LoopbackServer) -> None:
    async def scenario() -> None:
        server.handler = lambda path, body: {
            "prompt_logprobs": [None, {"7": {"logprob": -1.5}}, {"8": {"logprob": -2.5}}]
        }
        assert await VllmEngine(server.url, 5).score([3, 7, 8]) == [-1.5, -2.5]
        with pytest.raises(EngineError, match="not those of token_ids"):
            await VllmEngine(server.url, 5).score([3, 7])
        rows = [[None, 3, None], [-1.5, 7, None], [-2.5, 8, None]]
        server.handler = lambda path, body: {"meta_info": {"input_token_logprobs": rows}}
        assert await SglangEngine(server.url, 5).score([3, 7, 8]) == [-1.5, -2.5]
        with pytest.raises(EngineError, match="not those of input_ids"):
            await SglangEngine(server.url, 5).score([3, 8, 7])

    asyncio.run(scenario())


def test_a_fleet_of_any_kind_keeps_a_session_on_one_server(
    server: LoopbackServer, other_server: LoopbackServer
) -> None:
    for number, one in enumerate((server, other_server)):
        versions = [{"version": str(number), "start": 0, "end": 1}]
        one.handler = lambda path, body, versions=versions: vllm_answer([5], versions)

    async def scenario() -> dict[int, set[int]]:
        engine, _ = engine_pair("vllm", [server.url, other_server.url], timeout=5)
        seen: dict[int, set[int]] = {}
        for rollout in [*range(8)] * 2:
            spans, _ = await engine.generate([1], SAMPLING, f"swe-{rollout}")
            seen.setdefault(rollout, set()).add(spans[0].version)
        return seen

    seen = asyncio.run(scenario())
    assert all(len(versions) == 1 for versions in seen.values()) and set.union(*seen.values()) == {0, 1}
