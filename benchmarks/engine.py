"""Output tokens per second of the engine beside transformers and vLLM, time to first token with the prefix cache, speculation.

    python benchmarks/engine.py [--sizes 1M 20M] [--threads 2] [--checkpoint FOLDER] [--vllm PYTHON] [--out FILE]

Throughput: random weights, greedy, prompts and outputs of 16 to 128 tokens. transformers' generate (its indexer mended as in
benchmarks/model.py) runs static batches, each until its longest output is done; only tokens that were asked for count.
index_topk is as long as the longest context, so that all compute the same; the lines that name a smaller one say how fast that
is and compare no tokens. deterministic: the engine's mode in which tokens do not depend on the batch. Second turn: milliseconds
to the first token of a second turn with the prefix cache, and after it was flushed. Speculation: drafts of a trained
checkpoint's MTP layer on held-out standard library source. vLLM: PYTHON is the interpreter of an environment that has its CPU
build (benchmarks/vllm_peer.py); it serves the same weights as Glm4MoeLite, in float32.

Before anything is timed, tokens are compared: outputs may part at near ties alone, or the run ends. Repeats are interleaved,
figures and ratios are of medians.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from generators import (
    LONGEST,
    MAX_LENGTH,
    Contenders,
    Ours,
    Peer,
    Request,
    Static,
    as_glm4_moe_lite,
    compared,
    mixed,
    rates,
    shared,
    written,
)

from arcforge.chat.tokenizer import Tokenizer
from arcforge.core.messages import Sampling
from arcforge.data.sources import split, standard_library
from arcforge.infer.engine import Engine, EngineConfig
from arcforge.model.checkpoint import load_checkpoint
from arcforge.model.config import ModelConfig
from arcforge.model.counts import count
from arcforge.model.initialise import new_model
from arcforge.view.table import table
from model import COMMON, SIZES, load

LITE = {
    "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "qk_nope_head_dim": 64, "v_head_dim": 64,
    "q_lora_rank": 128, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "intermediate_size": 768, "moe_intermediate_size": 128,
    "index_n_heads": 4, "index_head_dim": 64,
}  # fmt: skip
"""Sizes whose latents vLLM's CPU kernel takes, which are those of the published models."""
REQUESTS = {1: 3, 8: 16, 32: 64, 128: 128}
FEWER = {1: 2, 8: 8, 32: 32}
"""Requests by concurrency, and those of the 20M model, for which transformers takes minutes at 128."""
SPARSE_AT, SPARSE_TOPK = 32, 64
FIRST_TURN, ANSWER, SECOND_TURN = 512, 64, 32
DRAFTS = range(5)
PARTS = ("throughput", "second-turn", "speculation", "vllm")
MODES = {"sampled at 0.8": 0.8, "greedy": 0.0}
PIECE = 128
CHECKPOINT = Path("runs/laptop/stages/09-distill/checkpoint")


def throughput(size: str, repeats: int) -> list[dict[str, Any]]:
    """Rows of the first table: every concurrency, and one with a small top-k."""
    rows, wanted = [], FEWER if size == "20M" else REQUESTS
    for topk, concurrencies in ((MAX_LENGTH, wanted), (SPARSE_TOPK, {SPARSE_AT: wanted[SPARSE_AT]})):
        with tempfile.TemporaryDirectory() as temporary:
            config = written({**SIZES[size], "index_topk": topk}, Path(temporary))
            ours, theirs = load("arcforge", Path(temporary)), load("mended", Path(temporary))
        contenders: Contenders = {
            "arcforge": Ours(ours),
            "deterministic": Ours(ours, deterministic=True),
            "transformers": Static(theirs),
        }
        for concurrency, number in concurrencies.items():
            requests = mixed(number, config.vocab_size, seed=concurrency)
            equal = compared(contenders, requests, concurrency) if topk >= MAX_LENGTH else {}
            row = {"size": size, "topk": topk, "concurrency": concurrency, "requests": number, "equal": equal}
            rows.append({**row, "tokens_per_second": rates(contenders, requests, concurrency, repeats)})
            print(throughput_table(rows[-1:]).splitlines()[-1], flush=True)
    return rows


def throughput_table(rows: list[dict[str, Any]]) -> str:
    names = [name for name in rows[0]["tokens_per_second"] if name != "arcforge"]
    header = ["size, at once", "requests", "arcforge tok/s"]
    for name in names:
        header += [name, "arcforge's /", "equal tokens"]
    lines = []
    for row in rows:
        label = f"{row['size']} {row['concurrency']}" + (f", top-k {row['topk']}" if row["topk"] < MAX_LENGTH else "")
        ours = row["tokens_per_second"]["arcforge"]
        line = [label, str(row["requests"]), f"{ours:,.0f}"]
        for name in names:
            rate, equal = row["tokens_per_second"][name], row["equal"].get(name)
            line += [f"{rate:,.0f}", f"{ours / rate:.2f}", "" if equal is None else f"{equal:.4f}"]
        lines.append(line)
    return table(header, lines)


def first_token(engine: Engine, prompt: list[int], count: int) -> tuple[float, list[int], int]:
    """Seconds, sampled ids and cached tokens of a request that generates `count` tokens."""
    start = time.perf_counter()
    engine.add(prompt, Sampling(temperature=0.0, max_tokens=count), "r")
    while engine.has_work:
        engine.step()
    output = engine.result("r")
    return time.perf_counter() - start, [i for span in output.spans for i in span.ids], output.cached_tokens


def second_turn(size: str, conversations: int = 9) -> dict[str, Any]:
    """Time to first token of a second turn, top-k as in benchmarks/model.py; the first conversation warms up."""
    config = ModelConfig.model_validate({**COMMON, **SIZES[size]})
    engine, draw = Engine(new_model(config, seed=0), EngineConfig(max_running=2)), random.Random(0)
    seconds: dict[str, list[float]] = {"cached": [], "flushed": []}
    for number in range(conversations + 1):
        turns = [[draw.randrange(1, config.vocab_size) for _ in range(n)] for n in (FIRST_TURN, SECOND_TURN)]
        _, answer, _ = first_token(engine, turns[0], ANSWER)
        prompt = turns[0] + answer + turns[1]
        found = {}
        for kind in seconds:
            if kind == "flushed":
                engine.flush()
            found[kind] = first_token(engine, prompt, 1)
            if number:
                seconds[kind].append(found[kind][0])
        if found["cached"][1] != found["flushed"][1] or not found["cached"][2] or found["flushed"][2]:
            raise SystemExit(f"a second turn differs with and without the prefix cache: {found}")
    medians = {kind: statistics.median(values) for kind, values in seconds.items()}
    return {"size": size, "prompt": len(prompt), "cached_tokens": found["cached"][2], "seconds": medians}


def turn_table(rows: list[dict[str, Any]]) -> str:
    header = ["size", "prompt", "of it cached", "ms cached", "ms flushed", "flushed / cached"]
    lines = []
    for row in rows:
        cached, flushed = row["seconds"]["cached"], row["seconds"]["flushed"]
        times = [f"{1000 * cached:.1f}", f"{1000 * flushed:.1f}", f"{flushed / cached:.1f}"]
        lines.append([row["size"], str(row["prompt"]), str(row["cached_tokens"]), *times])
    return table(header, lines)


def pieces(folder: Path, number: int) -> list[Request]:
    """Prompts of PIECE tokens from modules that training on the standard library holds out, and as many to generate."""
    tokenizer = Tokenizer.load(folder)
    rows = [tokenizer.encode(document.text) for document in split(standard_library())[1]]
    found = [row[at : at + PIECE] for row in rows for at in range(0, len(row) - 2 * PIECE, 2 * PIECE)]
    return [(prompt, PIECE) for prompt in random.Random(0).sample(found, number)]


def speculation(folder: Path, repeats: int) -> list[dict[str, Any]]:
    """Rows of the third table. Greedy outputs with drafts are compared with those without."""
    model = load_checkpoint(folder)
    requests = pieces(folder, 16)
    few = requests[:3]
    contenders: Contenders = {str(k): Ours(model, drafts=k) for k in DRAFTS}
    plain, rows = contenders["0"](requests, 8, top_logprobs=2), []
    for k in DRAFTS:
        shared(plain, contenders[str(k)](requests, 8), f"{k} drafts")
    for mode, temperature in MODES.items():
        asked = {
            name: lambda *a, g=generate, t=temperature: g(*a, temperature=t) for name, generate in contenders.items()
        }
        stats = {name: generate(requests, 8).stats for name, generate in asked.items()}
        speed = {"1": rates(asked, few, 1, repeats), "8": rates(asked, requests, 8, repeats)}
        for k in DRAFTS:
            kept = {name: value for name, value in stats[str(k)].items() if name.startswith("accept")}
            rows.append({"mode": mode, "drafts": k, **kept, "tokens_per_second": {c: speed[c][str(k)] for c in speed}})
    return rows


def speculation_table(rows: list[dict[str, Any]]) -> str:
    header = ["mode, drafts", "acceptance length", *(f"draft {k}" for k in DRAFTS[1:])]
    header += ["1 at once tok/s", "/ no drafts", "8 at once tok/s", "/ no drafts"]
    lines, plain = [], {}
    for row in rows:
        places = [f"{row[f'accepted_at_{k}']:.2f}" if f"accepted_at_{k}" in row else "" for k in DRAFTS[1:]]
        length = f"{row['acceptance_length']:.2f}" if row["drafts"] else ""
        plain = plain if row["drafts"] else row["tokens_per_second"]
        speeds = [
            text for c, rate in row["tokens_per_second"].items() for text in (f"{rate:,.0f}", f"{rate / plain[c]:.2f}")
        ]
        lines.append([f"{row['mode']} {row['drafts']}", length, *places, *speeds])
    return table(header, lines)


def beside_vllm(python: str, threads: int, repeats: int) -> dict[str, Any]:
    """Rows of the fourth table, and what vLLM says of itself."""
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        source, target = Path(temporary) / "source", Path(temporary) / "lite"
        config = written({**LITE, "index_topk": MAX_LENGTH}, source)
        as_glm4_moe_lite(source, target)
        with Peer(python, target, "float32", threads, max(REQUESTS)) as peer:
            contenders: Contenders = {"arcforge": Ours(load_checkpoint(source)), "vLLM": peer}
            for concurrency, number in REQUESTS.items():
                requests = mixed(number, config.vocab_size, seed=concurrency)
                equal = compared(contenders, requests, concurrency)
                row = {"size": f"{count(config).active / 1e6:.1f}M", "topk": MAX_LENGTH, "concurrency": concurrency}
                row = {**row, "requests": number, "equal": equal}
                rows.append({**row, "tokens_per_second": rates(contenders, requests, concurrency, repeats)})
                print(throughput_table(rows[-1:]).splitlines()[-1], flush=True)
    return {"about": peer.about, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["1M", "20M"])
    parser.add_argument("--repeats", type=int, default=3, help="counted repeats of each measurement")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--checkpoint",
        type=Path,
        help=f"a trained model with an MTP layer, for speculation (default: {CHECKPOINT}, which `make demo` makes)",
    )
    parser.add_argument("--vllm", metavar="PYTHON", help="interpreter of an environment that has vLLM's CPU build")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="the tables to make")
    parser.add_argument("--out", type=Path, help="write the figures as JSON too")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    found: dict[str, Any] = {"threads": arguments.threads, "repeats": arguments.repeats}
    if "throughput" in arguments.only:
        found["throughput"] = [row for size in arguments.sizes for row in throughput(size, arguments.repeats)]
    if "second-turn" in arguments.only:
        found["second_turn"] = [second_turn(size) for size in arguments.sizes]
    checkpoint = arguments.checkpoint or CHECKPOINT
    if "speculation" in arguments.only and (arguments.checkpoint or checkpoint.exists()):
        found["speculation"] = speculation(checkpoint, arguments.repeats)
    if "vllm" in arguments.only and arguments.vllm:
        found["vllm"] = beside_vllm(arguments.vllm, arguments.threads, arguments.repeats)
    show(found)
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1))


def show(found: dict[str, Any]) -> None:
    print(f"\n{found['threads']} threads, float32, medians of {found['repeats']}")
    if "throughput" in found:
        rows = throughput_table(found["throughput"])
        print(f"\noutput tokens per second, prompts and outputs up to {LONGEST}\n\n{rows}")
    if "second_turn" in found:
        print(f"\ntime to first token of a second turn\n\n{turn_table(found['second_turn'])}")
    if "speculation" in found:
        print(f"\nspeculation, acceptance length = 1 + accepted / drafts\n\n{speculation_table(found['speculation'])}")
    if "vllm" in found:
        print(f"\nbeside vLLM {found['vllm']['about']}\n\n{throughput_table(found['vllm']['rows'])}")


if __name__ == "__main__":
    main()
