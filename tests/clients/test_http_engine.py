"""The token API's client against a real server: spans, versions, keep-alive, timeouts, retries and nonsense."""

import asyncio
import socket
import threading

import pytest

from arcforge.clients.arcforge import EngineControl, EngineFleet, HttpTokenEngine, RewardClient
from arcforge.clients.http import RETRIES, JsonClient
from arcforge.core.errors import EngineError, RolloutTimeout
from arcforge.core.messages import Sampling
from arcforge.core.protocols import TokenEngine

SAMPLING = Sampling(max_tokens=5, temperature=0.5, top_p=0.9, seed=7, stop_ids=(0, 4))


def generated(ids, versions, finish="stop"):
    logprobs = [[-0.5 * n, i, None] for n, i in enumerate(ids)]
    meta = {
        "id": "x",
        "finish_reason": {"type": finish},
        "output_token_logprobs": logprobs,
        "weight_versions": versions,
    }
    return {"output_ids": ids, "meta_info": {**meta, "prompt_tokens": 3, "completion_tokens": len(ids)}}


def test_spans_are_split_where_the_weights_changed(server) -> None:
    versions = [{"version": 3, "start": 0, "end": 2}, {"version": 4, "start": 2, "end": 3}]
    server.handler = lambda path, body: generated([9, 8, 4], versions)

    async def main():
        engine = HttpTokenEngine(server.url, timeout=5)
        assert isinstance(engine, TokenEngine)
        answers = [await engine.generate([1, 2, 3], SAMPLING, "rollout-1") for _ in range(2)]
        await engine.close()
        return answers

    (spans, finish), _ = asyncio.run(main())
    assert finish == "stop"
    assert [(span.ids, span.logprobs, span.version) for span in spans] == [([9, 8], [0.0, -0.5], 3), ([4], [-1.0], 4)]
    assert all(span.source == "model" and span.trained for span in spans)
    (path, body, headers), (_, second, _) = server.requests
    assert path == "/generate" and headers["x-session-id"] == "rollout-1"
    assert body["rid"] != second["rid"] and body["rid"].startswith("rollout-1-")
    assert body["input_ids"] == [1, 2, 3] and body["return_logprob"] is True
    assert body["sampling_params"] == {
        "max_new_tokens": 5,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 7,
        "stop_token_ids": [0, 4],
    }


def test_an_aborted_request_without_tokens(server) -> None:
    server.handler = lambda path, body: generated([], [], "abort")
    assert asyncio.run(HttpTokenEngine(server.url, 5).generate([1], SAMPLING)) == ([], "abort")
    assert "x-session-id" not in server.requests[0][2]


@pytest.mark.parametrize(
    "answer",
    [
        {},
        [],
        {"output_ids": [1], "meta_info": {}},
        generated([1, 2], [{"version": 0, "start": 0, "end": 1}]),
        generated([1, 2], [{"version": 0, "start": 1, "end": 2}]),
        generated([1, 2], [{"version": "new", "start": 0, "end": 2}]),
        {**generated([1], [{"version": 0, "start": 0, "end": 1}]), "output_ids": [2]},
        (200, "<html>", {}),
        (500, "boom", {}),
    ],
)
def test_nonsense_is_an_engine_error(server, answer) -> None:
    server.handler = lambda path, body: answer
    with pytest.raises(EngineError, match="/generate: "):
        asyncio.run(HttpTokenEngine(server.url, 5).generate([1], SAMPLING))
    assert len(server.requests) == 1


def test_scores(server) -> None:
    server.handler = lambda path, body: {"logprobs": [[-1.0] * (len(ids) - 1) for ids in body["batch"]]}

    async def main():
        engine = HttpTokenEngine(server.url, 5)
        assert await engine.score([1, 2, 3]) == [-1.0, -1.0]
        assert await engine.score_batch([[1], [1, 2]]) == [[], [-1.0]]
        server.handler = lambda path, body: {"logprobs": [[-1.0]]}
        with pytest.raises(EngineError, match="not one log-probability"):
            await engine.score([1, 2, 3])

    asyncio.run(main())


def test_rewards(server) -> None:
    async def main():
        client = RewardClient(server.url, 5)
        server.handler = lambda path, body: {"rewards": [float(sum(ids)) for ids in body["ids"]]}
        assert await client.rewards([[1, 2], [3]]) == [3.0, 3.0]
        server.handler = lambda path, body: (409, {"error": {"message": "no scalar head"}}, {})
        with pytest.raises(EngineError, match="409: no scalar head"):
            await client.rewards([[1]])
        server.handler = lambda path, body: {"rewards": []}
        with pytest.raises(EngineError, match="0 rewards for 1"):
            await client.rewards([[1]])

    asyncio.run(main())


def test_connections_are_kept_and_loops_may_change(server) -> None:
    server.handler = lambda path, body: {"logprobs": [[]]}
    engine = HttpTokenEngine(server.url, 5)

    async def main():
        for _ in range(5):
            await engine.score([1])

    asyncio.run(main())
    assert len(server.ports) == 1
    asyncio.run(main())
    assert len(server.requests) == 10


def test_many_requests_at_once(server) -> None:
    server.handler = lambda path, body: {"logprobs": [[float(body["batch"][0][0])] * (len(body["batch"][0]) - 1)]}

    async def main():
        engine = HttpTokenEngine(server.url, 20)
        answers = await asyncio.gather(*(engine.score([n, 0]) for n in range(60)))
        assert answers == [[float(n)] for n in range(60)]

    asyncio.run(main())


def test_silence_is_a_timeout(server) -> None:
    server.handler = lambda path, body: 5.0
    with pytest.raises(RolloutTimeout, match=r"no answer within 0\.2 s"):
        asyncio.run(HttpTokenEngine(server.url, 0.2).generate([1], SAMPLING))


def test_nobody_there_is_an_engine_error(closed_port: str) -> None:
    with pytest.raises(EngineError, match="Cannot connect"):
        asyncio.run(HttpTokenEngine(closed_port, 30).generate([1], SAMPLING))
    with pytest.raises(EngineError, match="nonsense"):
        asyncio.run(HttpTokenEngine("nonsense", 5).generate([1], SAMPLING))


def test_a_server_that_hangs_up_first_is_asked_again() -> None:
    """The first connection is closed without an answer, as an idle one is when a server restarts."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(10)

    def serve() -> None:
        for answer in (b"", b'HTTP/1.1 200 OK\r\ncontent-length: 18\r\n\r\n{"logprobs": [[]]}'):
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    assert asyncio.run(HttpTokenEngine(url, 5).score([1])) == []
    thread.join(10)
    listener.close()


@pytest.mark.parametrize(
    "sent, told",
    [
        (b"garbage\r\n\r\n", "ClientResponseError"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{}", "ClientPayloadError"),
    ],
)
def test_a_server_that_never_answers_whole_is_asked_a_bounded_number_of_times(sent: bytes, told: str) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(10)
    asked = []

    def serve() -> None:
        while True:
            connection, _ = listener.accept()
            with connection:
                asked.append(connection.recv(65536))
                if not asked[-1]:
                    return
                connection.sendall(sent)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with pytest.raises(EngineError, match=told) as error:
        asyncio.run(HttpTokenEngine(f"http://127.0.0.1:{listener.getsockname()[1]}", 20).score([1]))
    assert "\n" not in str(error.value)
    socket.create_connection(listener.getsockname()).close()
    thread.join(10)
    listener.close()
    assert len(asked) == RETRIES + 2


def test_a_header_that_cannot_be_sent_is_an_engine_error(server) -> None:
    async def main():
        async with JsonClient(server.url, 5, {"x-api-key": "two\nlines"}) as client:
            await client.post("/generate", {})

    with pytest.raises(EngineError, match="ValueError"):
        asyncio.run(main())
    assert not server.requests


def test_an_answer_given_up_on_ends_its_connection(server) -> None:
    """The server notices, and can stop sampling; the next request is not mixed up with the old answer."""
    server.handler = lambda path, body: 0.6 if path == "/slow" else {"fast": True}

    async def main():
        async with JsonClient(server.url, 0.3) as client:
            with pytest.raises(RolloutTimeout):
                await client.post("/slow", {})
            assert await client.post("/fast", {}) == {"fast": True}

    asyncio.run(main())
    assert len(server.ports) == 2


def test_a_client_left_open_ends_with_its_loop_in_silence(server, capfd, caplog) -> None:
    server.handler = lambda path, body: {"logprobs": [[]]}
    engine = HttpTokenEngine(server.url, 5)
    for _ in range(2):
        asyncio.run(engine.score([1]))
    del engine
    assert capfd.readouterr() == ("", "") and not caplog.records


def test_control_reaches_every_engine(server, closed_port: str) -> None:
    server.handler = lambda path, body: {"version": 4}

    async def main():
        fleet = EngineControl([server.url, server.url + "/second"], 5)
        await fleet.pause()
        await fleet.update_weights("/weights/4", 4)
        await fleet.resume()
        assert await fleet.health() == [{"version": 4}] * 2
        await fleet.close()
        server.handler = lambda path, body: (503, {"error": {"message": "stuck"}}, {}) if body is None else {}
        broken = EngineControl([server.url, closed_port], 10)
        assert await broken.health() == [None, None]
        with pytest.raises(EngineError, match=closed_port):
            await broken.pause("abort")

    asyncio.run(main())
    told = [(path, body) for path, body, _ in server.requests[:6]]
    for prefix in ("", "/second"):
        assert (f"{prefix}/pause", {"mode": "keep"}) in told
        assert (f"{prefix}/update_weights", {"folder": "/weights/4", "version": 4}) in told
        assert (f"{prefix}/resume", {}) in told
    assert server.requests[-1][:2] == ("/pause", {"mode": "abort"})


def test_a_slow_engine_is_unwell_in_time(server) -> None:
    server.handler = lambda path, body: 30.0

    async def main():
        return await asyncio.wait_for(EngineControl([server.url], 0.3).health(), 6)

    assert asyncio.run(main()) == [None]


def test_a_fleet_keeps_a_rollout_on_one_engine_and_uses_all(server, other_server) -> None:
    one, two = [{"version": 1, "start": 0, "end": 1}], [{"version": 2, "start": 0, "end": 1}]
    server.handler = lambda path, body: generated([5], one)
    other_server.handler = lambda path, body: generated([5], two)

    async def main():
        fleet = EngineFleet([server.url, other_server.url], timeout=5)
        assert isinstance(fleet, TokenEngine)
        versions = {}
        for turn in range(3):
            for rollout in range(12):
                spans, _ = await fleet.generate([1, turn], SAMPLING, f"swe-{rollout}")
                versions.setdefault(rollout, set()).add(spans[0].version)
        await fleet.close()
        return versions

    versions = asyncio.run(main())
    assert all(len(seen) == 1 for seen in versions.values())
    assert set.union(*versions.values()) == {1, 2}
