"""What every token server must do on the wire, whoever wrote it: ours in SGLang's format and in vLLM's, and a real vLLM.

The real one is started where ARCFORGE_VLLM_PYTHON names an interpreter that has vLLM (benchmarks/vllm_peer.py tells how to make
such an environment). Everything but the last tests is raw HTTP.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from engine_pair import engine_pair
from wire import LONGEST, Call, Dialect, RealVllm, Server, Told, VllmDialect, checkpoints, lite, ours, vllm

from arcforge.core.errors import EngineError
from arcforge.core.messages import Sampling

PROMPT = [21, 30, 41, 52, 63]
VLLM = os.environ.get("ARCFORGE_VLLM_PYTHON", "")
REAL = pytest.param(
    "vllm", marks=pytest.mark.skipif(not VLLM, reason="ARCFORGE_VLLM_PYTHON names no interpreter with vLLM")
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return checkpoints(tmp_path_factory.mktemp("wire"))


@pytest.fixture(scope="module")
def our_url(folders: list[Path]) -> Iterator[str]:
    with ours(folders) as url:
        yield url


@pytest.fixture(scope="module")
def real_vllm(tmp_path_factory: pytest.TempPathFactory, folders: list[Path]) -> Iterator[tuple[str, list[Path]]]:
    root = tmp_path_factory.mktemp("vllm")
    same = lite(folders, root)
    with vllm(VLLM, same[0], root / "vllm.log") as url:
        yield url, same


@pytest.fixture(params=["ours as SGLang", "ours as vLLM", REAL])
def served(request: pytest.FixtureRequest, folders: list[Path]) -> Server:
    if request.param == "vllm":
        url, same = request.getfixturevalue("real_vllm")
        return Server(url, RealVllm(), same)
    dialect = VllmDialect() if request.param == "ours as vLLM" else Dialect()
    return Server(request.getfixturevalue("our_url"), dialect, folders)


def call(http: httpx.Client, asked: Call) -> Any:
    response = http.post(asked[0], json=asked[1])
    assert response.status_code == 200, f"{asked[0]}: {response.status_code}: {response.text}"
    return response.json() if response.content else None


class Client:
    """One server and its dialect. Requests may run beside each other in threads."""

    def __init__(self, served: Server, http: httpx.Client, threads: ThreadPoolExecutor) -> None:
        self.served, self.http, self.dialect, self._threads = served, http, served.dialect, threads

    @property
    def long(self) -> int:
        return self.dialect.long

    def choices(self, *arguments: Any, **params: Any) -> list[Told]:
        return self.dialect.read(call(self.http, self.dialect.generate(*arguments, **params)))

    def ask(self, *arguments: Any, **params: Any) -> Told:
        (told,) = self.choices(*arguments, **params)
        return told

    def start(self, count: int, **params: Any) -> Future[Told]:
        """A request that is being answered by now."""
        self.idle()
        future = self.beside(lambda: self.ask(PROMPT, count, **params))
        self.until(lambda: self.dialect.sampling(self.http) or future.done())
        return future

    def beside(self, action: Callable[[], Any]) -> Future[Any]:
        return self._threads.submit(action)

    def until(self, true: Callable[[], bool]) -> None:
        end = time.monotonic() + 30
        while not true():
            assert time.monotonic() < end, "it did not happen within 30 s"
            time.sleep(0.02)

    def idle(self) -> None:
        self.until(lambda: not self.dialect.sampling(self.http))

    def update(self, number: int, version: int) -> None:
        for step in self.dialect.update(self.served.folders[number], version):
            call(self.http, step)

    @contextmanager
    def paused(self, mode: str) -> Iterator[None]:
        call(self.http, self.dialect.pause(mode))
        try:
            yield
        finally:
            call(self.http, self.dialect.resume())


@pytest.fixture
def client(served: Server) -> Iterator[Client]:
    with served.http() as http, ThreadPoolExecutor(8) as threads:
        yield Client(served, http, threads)


def test_ids_go_in_and_come_out_each_with_its_log_probability(client: Client) -> None:
    told = client.ask(PROMPT, 12, temperature=0.0)
    assert len(told.ids) == len(told.logprobs) == 12 and all(isinstance(i, int) for i in told.ids)
    assert all(p <= 0 for p in told.logprobs) and told.finish == "length"
    again = client.ask(PROMPT, 12, temperature=0.0)
    assert again.ids == told.ids and again.logprobs == pytest.approx(told.logprobs, abs=1e-4)
    assert client.ask(PROMPT + told.ids[:5], 7, temperature=0.0).ids == told.ids[5:]


def test_log_probabilities_are_those_that_the_ids_have_as_a_prompt(client: Client) -> None:
    told = client.ask(PROMPT, 20, temperature=1.0, seed=5)
    whole = PROMPT + told.ids
    scored = client.dialect.prompt_logprobs(call(client.http, client.dialect.scored(whole)), whole)
    assert scored[-20:] == pytest.approx(told.logprobs, abs=2e-3)


def test_log_probabilities_are_of_the_distribution_at_the_temperature(client: Client) -> None:
    """log p(a) - log p(b) doubles at half the temperature. Importance ratios are wrong without it."""

    def first_tokens(temperature: float) -> dict[int, float]:
        drawn = [client.choices(PROMPT, 1, temperature=temperature, seed=s, n=32) for s in (1, 2, 3)]
        return {told.ids[0]: told.logprobs[0] for told in (t for choices in drawn for t in choices)}

    warm, cool = first_tokens(1.0), first_tokens(0.5)
    common = sorted(warm.keys() & cool.keys(), key=lambda token: warm[token])
    low, high = common[0], common[-1]
    assert warm[high] - warm[low] > 0.05
    assert cool[high] - cool[low] == pytest.approx(2 * (warm[high] - warm[low]), abs=2e-3)


def test_a_stop_id_ends_the_answer_and_is_part_of_it(client: Client) -> None:
    free = client.ask(PROMPT, 30, temperature=1.0, seed=2)
    place = next(k for k in range(1, 30) if free.ids[k] not in free.ids[:k])
    told = client.ask(PROMPT, 30, stop=[free.ids[place]], temperature=1.0, seed=2)
    assert told.ids == free.ids[: place + 1] and told.finish == "stop" and len(told.logprobs) == place + 1


@pytest.mark.parametrize("count", [1, 7])
def test_as_many_tokens_as_asked_for(client: Client, count: int) -> None:
    told = client.ask(PROMPT, count)
    assert len(told.ids) == count and told.finish == "length"
    (version, start, end) = told.versions[0]
    assert len(told.versions) == 1 and (start, end) == (0, count) and version >= 0


def test_a_seed_repeats_and_another_does_not(client: Client) -> None:
    one, same, other = (client.ask(PROMPT, 20, temperature=1.0, seed=seed) for seed in (3, 3, 4))
    assert one.ids == same.ids != other.ids


def test_an_aborted_request_is_answered_with_what_it_has(client: Client) -> None:
    running = client.start(client.long, rid="to-abort")
    call(client.http, client.dialect.abort("to-abort"))
    told = running.result(30)
    assert told.finish == "abort" and len(told.ids) == len(told.logprobs) < client.long
    assert sum(end - start for _, start, end in told.versions) == len(told.ids)


def test_a_client_that_hangs_up_frees_its_place(client: Client) -> None:
    path, body = client.dialect.generate(PROMPT, LONGEST - len(PROMPT))
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{client.served.url}{path}", json=body, timeout=0.3, trust_env=False)
    client.idle()


def test_pause_keep_freezes_what_runs_and_holds_what_comes(client: Client) -> None:
    running = client.start(client.long)
    with client.paused("keep"):
        came = client.beside(lambda: client.ask(PROMPT, 3))
        time.sleep(0.5)
        assert not running.done() and not came.done()
    assert running.result(60).finish == came.result(60).finish == "length"
    assert len(running.result().ids) == client.long


def test_pause_abort_ends_what_runs(client: Client) -> None:
    running = client.start(client.long)
    with client.paused("abort"):
        told = running.result(30)
        assert told.finish == "abort" and len(told.ids) < client.long
        came = client.beside(lambda: nothing_sampled(client))
        time.sleep(0.5)
        assert not came.done()
    assert came.result(60) == 200
    assert client.ask(PROMPT, 3).finish == "length"


def test_pause_wait_lets_what_runs_finish(client: Client) -> None:
    running = client.start(client.long // 3)
    with client.paused("wait"):
        assert running.result(5).finish == "length"
        came = client.beside(lambda: nothing_sampled(client))
        time.sleep(0.5)
        assert not came.done()
    assert came.result(60) == 200


def nothing_sampled(client: Client) -> int:
    """The status of a request that comes in a pause and is held until it is over."""
    path, body = client.dialect.generate(PROMPT, 3)
    return client.http.post(path, json=body).status_code


def test_an_update_in_a_pause_shows_in_the_spans(client: Client) -> None:
    before = client.ask(PROMPT, 10, temperature=0.0)
    version = before.versions[-1][0]
    running = client.start(client.long, temperature=0.0)
    with client.paused("keep"):
        for step in client.dialect.update(client.served.folders[1], version + 1):
            if step not in (client.dialect.pause("keep"), client.dialect.resume()):
                call(client.http, step)
    told, after = running.result(60), client.ask(PROMPT, 10, temperature=0.0)
    assert [run[0] for run in told.versions] == [version, version + 1] and len(told.ids) == client.long
    (_, first, switch), (_, again, last) = told.versions
    assert first == 0 < switch == again < last == client.long
    assert told.ids[: min(switch, 10)] == before.ids[: min(switch, 10)]
    assert [run[0] for run in after.versions] == [version + 1] and after.ids != before.ids
    client.update(0, version + 2)
    assert client.ask(PROMPT, 10, temperature=0.0).ids == before.ids


def test_health_is_well(client: Client) -> None:
    assert client.http.get("/health").status_code == 200
    assert client.http.get("/v1/models").json()["data"][0]["max_model_len"] == LONGEST


def spoilt(dialect: Dialect) -> dict[str, Call]:
    path, body = dialect.generate(PROMPT, 3)
    return {
        "no ids": (path, {**body, dialect.ids: []}),
        "text for ids": (path, {**body, dialect.ids: "hello"}),
        "a negative id": (path, {**body, dialect.ids: [5, -1]}),
        "an id that is none": (path, {**body, dialect.ids: [5, 10**6]}),
        "a prompt that is too long": dialect.generate([5] * (LONGEST + 1), 3),
        "a negative count": dialect.generate(PROMPT, -1),
        "a temperature that is none": dialect.generate(PROMPT, 3, temperature="hot"),
        "a negative temperature": dialect.generate(PROMPT, 3, temperature=-1.0),
        "a top_p that is none": dialect.generate(PROMPT, 3, top_p=2.0),
        "a stop id that is text": dialect.generate(PROMPT, 3, stop=["x"]),
    }


@pytest.mark.parametrize("what", spoilt(Dialect()))
def test_what_cannot_be_done_is_refused_in_json(client: Client, what: str) -> None:
    path, body = spoilt(client.dialect)[what]
    response = client.http.post(path, json=body)
    assert response.status_code in (400, 422), response.text
    problem = response.json()
    message = problem["error"]["message"] if "error" in problem else problem["detail"]
    assert message and "Traceback" not in str(message)


def test_a_body_that_is_no_json_and_a_path_that_is_none(client: Client) -> None:
    path, _ = client.dialect.generate(PROMPT, 3)
    headers = {"content-type": "application/json"}
    assert client.http.post(path, content=b"{", headers=headers).status_code in (400, 422)
    assert client.http.post("/nowhere", json={}).status_code == 404
    assert client.ask(PROMPT, 3).finish == "length"


def test_our_client_reads_what_the_wire_says(client: Client) -> None:
    told = client.ask(PROMPT, 15, temperature=0.0, stop=[1])

    async def scenario() -> None:
        engine, control = engine_pair(client.dialect.kind, [client.served.url], timeout=60)
        spans, finish = await engine.generate(PROMPT, Sampling(max_tokens=15, temperature=0.0, stop_ids=(1,)), "swe-1")
        assert finish == told.finish and [(s.version, len(s.ids)) for s in spans] == [
            (version, end - start) for version, start, end in told.versions
        ]
        assert [i for span in spans for i in span.ids] == told.ids
        assert [p for span in spans for p in span.logprobs] == pytest.approx(told.logprobs, abs=1e-4)
        scores = await engine.score(PROMPT + told.ids)
        assert len(scores) == len(PROMPT) + len(told.ids) - 1
        with pytest.raises(EngineError, match="40"):
            await engine.generate([10**6], Sampling(max_tokens=2))
        await engine.close()
        await control.close()

    asyncio.run(scenario())


def test_our_control_updates_a_server_under_running_requests(client: Client) -> None:
    async def scenario() -> None:
        engine, control = engine_pair(client.dialect.kind, [client.served.url], timeout=60)
        (health,) = await control.health()
        assert health is not None
        version = (health["version"] or 0) + 1
        running = asyncio.create_task(engine.generate(PROMPT, Sampling(max_tokens=client.long, temperature=0.0)))
        await asyncio.to_thread(client.until, lambda: client.dialect.sampling(client.http))
        await control.update_weights(client.served.folders[1], version)
        spans, finish = await running
        assert [span.version for span in spans] == [version - 1, version] and finish == "length"
        if client.dialect.computes_anew:
            # From the switch on it is what the new weights say of the whole context: nothing of the old ones is left.
            kept = PROMPT + spans[0].ids
            fresh, _ = await engine.generate(kept, Sampling(max_tokens=20, temperature=0.0))
            assert fresh[0].ids == spans[1].ids[:20]
        assert (await control.health())[0] == {"version": version}
        await control.update_weights(client.served.folders[0], version + 1)
        await engine.close()
        await control.close()

    asyncio.run(scenario())
