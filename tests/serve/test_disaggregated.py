"""A prefill worker and a decode worker, real processes behind a real router: the same answers, prompts computed elsewhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from small_checkpoints import small_checkpoints
from toy_engine import client, until

from arcforge.core import segments

IDS = [(7 * i) % 200 + 20 for i in range(70)]
PARAMS = {"max_new_tokens": 12, "stop_token_ids": [], "seed": 3}


@dataclass
class Cluster:
    router: str
    prefill: str
    decode: str
    prefill_process: subprocess.Popen[str]
    checkpoints: list[Path]


def started(stack: ExitStack, *command: str) -> tuple[str, subprocess.Popen[str]]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = stack.enter_context(
        subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True, env=environment)
    )
    stack.callback(process.kill)
    assert process.stdout is not None
    word, url = process.stdout.readline().split()
    assert word == "ready"
    return url, process


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folders = small_checkpoints([tmp_path_factory.mktemp(f"weights{seed}") for seed in (1, 2)])
    serve = ("-m", "arcforge.serve.main", str(folders[0]), "--port", "0", "--max-length", "256", "--deterministic")
    with ExitStack() as stack:
        prefill, process = started(stack, *serve, "--handoff", "shared_memory")
        decode, _ = started(stack, *serve, "--handoff", "shared_memory")
        route = (
            "-c",
            "from arcforge.cli.main import app; app()",
            "route",
            "--workers",
            decode,
            "--prefill",
            prefill,
            "--port",
            "0",
        )
        router, _ = started(stack, *route)
        with client(router) as http:
            until(lambda: all(worker["healthy"] for worker in http.get("/workers").json()["workers"]))
        yield Cluster(router, prefill, decode, process, folders)


def told(url: str, name: str) -> float:
    with client(url) as http:
        lines = http.get("/metrics").text.splitlines()
    return float(next(line.rsplit(" ", 1)[1] for line in lines if line.startswith(name)))


def generate(url: str, ids: list[int], **more: object) -> dict:
    with client(url) as http:
        response = http.post("/generate", json={"input_ids": ids, "sampling_params": PARAMS, **more})
        assert response.status_code == 200, response.text
        return response.json()


def test_an_answer_is_the_same_and_its_prompt_was_computed_elsewhere(cluster: Cluster) -> None:
    handed = generate(cluster.router, IDS)
    own = generate(cluster.prefill, IDS, cache_salt="elsewhere")
    assert handed["output_ids"] == own["output_ids"]
    told_by = [answer["meta_info"]["output_token_logprobs"] for answer in (handed, own)]
    assert told_by[0] == told_by[1], "bit for bit"
    assert handed["meta_info"]["cached_tokens"] == 64 and own["meta_info"]["cached_tokens"] == 0
    assert told(cluster.router, "arcforge_router_handed_off_total") >= 1
    assert not list(segments.folder().glob("arcforge-handoff-*")), "what was taken is released"


def test_chat_is_handed_off_and_streams(cluster: Cluster) -> None:
    before = told(cluster.router, "arcforge_router_handed_off_total")
    body = {"messages": [{"role": "user", "content": "hello world " * 12}], "max_tokens": 8, "temperature": 0}
    with client(cluster.router) as http:
        answer = http.post("/v1/chat/completions", json=body).json()
        assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
        with http.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as response:
            lines = [line for line in response.iter_lines() if line]
        claude = http.post("/v1/messages", json=body).json()
    assert lines[-1] == "data: [DONE]" and claude["usage"]["cache_read_input_tokens"] > 0
    assert told(cluster.router, "arcforge_router_handed_off_total") == before + 3


@pytest.mark.parametrize(
    "ticket", ["", "{", "[1]", "{}", '{"transport": "shared_memory", "name": "gone", "size": 5}', "9" * 5000]
)
def test_a_ticket_that_is_no_good_costs_the_computation_and_nothing_else(cluster: Cluster, ticket: str) -> None:
    with client(cluster.decode) as http:
        body = {"input_ids": [*IDS, 30], "sampling_params": PARAMS}
        answer = http.post("/generate", json=body, headers={"X-Arcforge-Handoff": ticket})
    assert answer.status_code == 200 and len(answer.json()["output_ids"]) == 12


def test_new_weights_reach_both_kinds_and_old_blocks_are_not_taken(cluster: Cluster) -> None:
    ids = [i + 1 for i in IDS]
    with client(cluster.prefill) as http:
        ticket = http.post("/prefill/generate", json={"input_ids": ids}).json()["ticket"]
    with client(cluster.router) as http:
        update = http.post("/update_weights", json={"folder": str(cluster.checkpoints[1]), "version": 7})
        assert update.status_code == 200 and len(update.json()["workers"]) == 2
    with httpx.Client(base_url=cluster.decode, timeout=20, trust_env=False) as http:
        headers = {"X-Arcforge-Handoff": json.dumps(ticket)}
        stale = http.post("/generate", json={"input_ids": ids, "sampling_params": PARAMS}, headers=headers).json()
    assert stale["meta_info"]["cached_tokens"] == 0 and stale["meta_info"]["weight_version"] == "7"
    fresh = generate(cluster.router, [i + 2 for i in IDS])
    assert fresh["meta_info"]["cached_tokens"] == 64 and fresh["meta_info"]["weight_version"] == "7"


def test_without_its_prefill_worker_the_decode_worker_computes_prompts_itself(cluster: Cluster) -> None:
    """Last in this file: it ends the shared process."""
    cluster.prefill_process.send_signal(signal.SIGKILL)
    for shift in range(3, 9):
        answer = generate(cluster.router, [i + shift for i in IDS])
        assert len(answer["output_ids"]) == 12
    assert answer["meta_info"]["cached_tokens"] == 0
    with client(cluster.router) as http:
        assert http.get("/health").json()["healthy"] == 1
