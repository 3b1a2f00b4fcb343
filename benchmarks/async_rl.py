"""Asynchronous agentic RL beside its synchronous twin and TRL where tools are slow: seconds for the same trained trajectories.

    python benchmarks/async_rl.py --checkpoint FOLDER [--trl PYTHON] [--sigmas none 0 0.5 1 1.5] [--steps 5] [--out FILE]

Every tool call sleeps first: log-normal, median 0.3 s, one row per sigma and one without. All contenders start from the same
trained checkpoint and work on the same tasks (envs.swe) with the same latencies; a repeat has tasks and latencies of its own.

    asynchronous    engines, orchestrator and trainer at once; as many rollouts in flight as a staleness of 2 lets be trained
    synchronous     the same code with a barrier: the whole batch in flight, then an update; each phase has both cores
                    (two engine processes, then a trainer of two threads)
    trl             GRPOTrainer of TRL with transformers' generate, both cores (benchmarks/trl_peer.py); PYTHON is the
                    interpreter of an environment that has TRL. Each turn is one batch over all rollouts, its tools run at once

Clocks start when all processes are up and stop with the last update. CPU s: of a contender's whole process tree in that time,
with what it spent on rollouts that were not trained (untrained: still running, waiting or too stale at the end). reward: mean of
the last third of the steps, as sampled in training; reward/s: sum over all trained trajectories per wall second. x twin, x TRL:
ratios of trajectories per second. Figures are medians of interleaved repeats.

What is not alike: asynchronous trains those groups that finish first, so its trajectories slept less (sleep s each), and it fills
and leaves a pipeline, which weighs most in few steps. Ours packs prompts that groups share and computes no gradient for groups
whose rewards are all equal; TRL computes all rows. Ours updates with Muon at 1e-3, TRL with AdamW at 5e-4 and its own loss. TRL
with vLLM is not measured.

One repeat of the defaults takes about 22 minutes on two cores that are otherwise idle, without TRL about 8; half of it is sigma
1.5.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from cell import Cell, Result

import arcforge
from arcforge.view.table import table

HERE = Path(__file__).parent
CONTENDERS = {"asynchronous": "rl_cell.py", "synchronous": "rl_cell.py", "trl": "trl_peer.py"}
SIGMAS = (None, 0.0, 0.5, 1.0, 1.5)
CHECKPOINT = Path("runs/laptop/stages/05-sft/checkpoint")
SETTINGS = {
    "OMP_NUM_THREADS": "1",  # processes that may use more tell PyTorch so
    "OMP_WAIT_POLICY": "PASSIVE",
    "HF_HUB_OFFLINE": "1",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
LONGEST = 1800.0
"""Seconds after which a measurement is given up."""


def run(cell: Cell, python: str) -> Result:
    """A measurement in a process of its own, on this package's source. SystemExit with the end of its log when it fails."""
    cell.folder.mkdir(parents=True)
    asked, answer, log = (cell.folder / name for name in ("cell.json", "result.json", "log"))
    asked.write_text(cell.model_dump_json())
    source = str(Path(arcforge.__file__).parents[1])
    with log.open("wb") as file:
        process = subprocess.Popen(
            [python, str(HERE / CONTENDERS[cell.contender]), str(asked), str(answer)],
            stdout=file,
            stderr=file,
            env={**os.environ, **SETTINGS, "PYTHONPATH": source},
            start_new_session=True,
        )
        try:
            code = process.wait(LONGEST)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(30)
    if code != 0:
        problem = f"no result within {LONGEST:.0f} s" if code is None else f"exit code {code}"
        raise SystemExit(
            f"{cell.contender}: {problem}; the end of its log:\n" + log.read_text(errors="replace")[-3000:]
        )
    return Result.model_validate_json(answer.read_text())


def measured(arguments: argparse.Namespace, folder: Path) -> list[tuple[Cell, Result]]:
    """Every row and contender in every repeat, after a step of each contender that does not count."""
    found = []
    for repeat in range(-1, arguments.repeats):
        for sigma in arguments.sigmas if repeat >= 0 else [None]:
            for contender in arguments.contenders:
                cell = Cell(
                    contender=contender,
                    checkpoint=arguments.checkpoint.absolute(),
                    folder=folder / f"{repeat}-{label(sigma)}-{contender}",
                    sigma=sigma,
                    steps=arguments.steps if repeat >= 0 else 1,
                    groups=arguments.groups,
                    group_size=arguments.group_size,
                    seed=max(0, repeat),
                    trl_threads=arguments.trl_threads,
                )
                result = run(cell, arguments.trl if contender == "trl" else sys.executable)
                if repeat >= 0:
                    found.append((cell, result))
                    print(f"repeat {repeat + 1} {label(sigma)} {contender}: {result.seconds:.1f} s", flush=True)
    return found


def summary(found: list[tuple[Cell, Result]]) -> list[dict[str, Any]]:
    """Medians over repeats per row and contender, in the order in which they were measured."""
    rows = []
    for sigma, contender in dict.fromkeys((cell.sigma, cell.contender) for cell, _ in found):
        results = [result for cell, result in found if (cell.sigma, cell.contender) == (sigma, contender)]
        figures = [numbers(result) for result in results]
        middle = {name: statistics.median(figure[name] for figure in figures) for name in figures[0]}
        rows.append({"sigma": sigma, "contender": contender, **middle, "walls": [r.seconds for r in results]})
    for row in rows:
        peers = {peer["contender"]: peer["rate"] for peer in rows if peer["sigma"] == row["sigma"]}
        row["ratios"] = {name: row["rate"] / peers[name] for name in ("synchronous", "trl") if name in peers}
    return rows


def numbers(result: Result) -> dict[str, float]:
    last = result.rewards[-max(1, len(result.rewards) // 3) :]
    return {
        "wall": result.seconds,
        "trained": result.trained,
        "rate": result.trained / result.seconds,
        "cpu": result.cpu_seconds,
        "per_cpu": result.trained / result.cpu_seconds,
        "staleness": result.staleness,
        "reward": statistics.fmean(last),
        "reward_rate": statistics.fmean(result.rewards) * result.trained / result.seconds,
        "calls": result.calls,
        "latency": result.latency,
        "untrained": result.untrained,
    }


def summary_table(rows: list[dict[str, Any]]) -> str:
    header = ["latency, contender", "wall s", "trained", "per s", "x twin", "x TRL", "CPU s", "per CPU s", "staleness"]
    header += ["reward", "reward/s", "calls each", "sleep s each", "untrained", "wall s of all repeats"]
    lines = []
    for row in rows:
        ratios = [f"{row['ratios'][name]:.2f}" if name in row["ratios"] else "" for name in ("synchronous", "trl")]
        line = [f"{label(row['sigma'])} {row['contender']}", f"{row['wall']:.1f}", f"{row['trained']:.0f}"]
        line += [f"{row['rate']:.2f}", *ratios, f"{row['cpu']:.1f}", f"{row['per_cpu']:.2f}", f"{row['staleness']:.2f}"]
        line += [f"{row['reward']:.3f}", f"{row['reward_rate']:.2f}", f"{row['calls']:.1f}", f"{row['latency']:.2f}"]
        lines.append([*line, f"{row['untrained']:.0f}", " ".join(f"{wall:.1f}" for wall in row["walls"])])
    return table(header, lines)


def label(sigma: float | None) -> str:
    return "none" if sigma is None else f"sigma {sigma:g}"


def sigma_or_none(text: str) -> float | None:
    return None if text == "none" else float(text)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT, help=f"a trained laptop model ({CHECKPOINT})")
    parser.add_argument("--sigmas", nargs="+", type=sigma_or_none, default=list(SIGMAS), help="numbers, or none")
    parser.add_argument("--steps", type=int, default=5, help="updates per measurement")
    parser.add_argument("--groups", type=int, default=6, help="groups per update")
    parser.add_argument("--group-size", type=int, default=8, help="attempts per group")
    parser.add_argument("--repeats", type=int, default=1, help="counted repeats of each measurement")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--trl", metavar="PYTHON", help="interpreter of an environment that has TRL")
    parser.add_argument("--trl-threads", type=int, default=2, help="PyTorch's threads in TRL's process")
    parser.add_argument("--out", type=Path, help="write the figures as JSON too")
    arguments = parser.parse_args()
    if not (arguments.checkpoint / "config.json").exists():
        parser.error(
            f"{arguments.checkpoint} is no checkpoint; `make demo` makes one, or name another with --checkpoint"
        )
    if not arguments.trl and "trl" in arguments.contenders:
        arguments.contenders = [name for name in arguments.contenders if name != "trl"]
        print("no TRL: name the interpreter of an environment that has it with --trl", flush=True)
    return arguments


def main() -> None:
    arguments = parsed()
    with tempfile.TemporaryDirectory() as temporary:
        found = measured(arguments, Path(temporary))
    rows = summary(found)
    batch = f"{arguments.groups} groups of {arguments.group_size}"
    print(f"\n{arguments.steps} steps of {batch}, medians of {arguments.repeats}\n\n{summary_table(rows)}")
    for about in dict.fromkeys(result.about for _, result in found if result.about):
        print(f"\n{about}")
    if arguments.out:
        places = {"checkpoint", "folder"}
        cells = [
            {**cell.model_dump(mode="json", exclude=places), "result": result.model_dump(mode="json")}
            for cell, result in found
        ]
        arguments.out.write_text(json.dumps({"rows": rows, "measurements": cells}, indent=1))


if __name__ == "__main__":
    main()
