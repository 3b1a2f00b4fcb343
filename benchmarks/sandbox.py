"""What sandboxes cost: start, exec, many at once, and rollouts of a scripted agent; against plain subprocesses and podman.

    python benchmarks/sandbox.py [--out FOLDER] [--podman IMAGE] [--alive 500] [--repeats 30]

Rows are measured in turns of ten calls, round after round, so that all of them meet the same machine, and none the clearing away
after another's last process; medians and the 90th percentile. An overlay sandbox is the whole local default: this machine's /usr and
Python under a fresh root, an overlay over a folder of 200 files, own namespaces, control groups. "bare" is one bubblewrap command
that sees the whole machine, read-only, made, run and gone. podman is skipped, and the table says so, where it is not installed or
IMAGE (made before, with a shell in it) is missing. Writes result.json and table.md to --out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from arcforge.agents.loop import run_agent
from arcforge.agents.policies import KeepAll
from arcforge.clients.scripted import ScriptedCompleter
from arcforge.core.messages import Message, Sampling, ToolCall
from arcforge.core.runs import atomic_write
from arcforge.envs.swe.family import SweFamily
from arcforge.envs.swe.oracle import oracle
from arcforge.sandbox.fork import ForkServer
from arcforge.sandbox.host import BARE, contained_python
from arcforge.sandbox.overlay import OverlaySandboxes
from arcforge.sandbox.pool import Pool

FILES = 200
WORKERS = 4
BURST = 10
Act = Callable[[], Awaitable[object]]


async def seconds(act: Act) -> float:
    began = time.perf_counter()
    await act()
    return time.perf_counter() - began


async def command(*argv: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    _, said = await asyncio.wait_for(process.communicate(), 120)
    if process.returncode:
        raise RuntimeError(f"{argv[0]}: {said.decode(errors='replace')[:300]}")


async def latencies(rows: dict[str, Act], repeats: int) -> dict[str, list[float]]:
    """Seconds by row; the rows take turns of BURST calls."""
    found: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(max(1, repeats // BURST)):
        for name, act in rows.items():
            await act()
            found[name] += [await seconds(act) for _ in range(BURST)]
    return found


async def rate(act: Act, workers: int, least_seconds: float = 4.0) -> float:
    """Calls per second of `workers` callers side by side."""
    done, began = 0, time.perf_counter()

    async def caller() -> None:
        nonlocal done
        while time.perf_counter() - began < least_seconds:
            await act()
            done += 1

    await asyncio.gather(*(caller() for _ in range(workers)))
    return done / (time.perf_counter() - began)


async def alive_at_once(boxes: OverlaySandboxes, folder: Path, count: int) -> dict[str, float]:
    """`count` sandboxes up at the same time, each having answered one command."""
    spec, began = boxes.host(folder), time.perf_counter()
    before = available_bytes()
    gate = asyncio.Semaphore(8)

    async def make() -> object:
        async with gate:
            return await boxes.create(spec)

    made = await asyncio.gather(*(make() for _ in range(count)))
    up = time.perf_counter() - began

    async def say(box: object) -> bool:
        async with gate:
            return (await box.exec(["echo", "here"], 60)).stdout == "here\n"  # type: ignore[attr-defined]

    answered = sum(await asyncio.gather(*map(say, made)))
    used = before - available_bytes()
    closing = time.perf_counter()
    await asyncio.gather(*(box.close() for box in made))
    return {
        "alive": len(made), "answered": answered, "up_seconds": up, "close_seconds": time.perf_counter() - closing,
        "memory_mb": used / 1e6,
    }  # fmt: skip


async def rollouts(concurrency: int, count: int) -> float:
    """Rollouts per second of the swe family's scripted repairer, tests run and graded in sandboxes."""
    family, gate = SweFamily(), asyncio.Semaphore(concurrency)

    async def one(index: int) -> float:
        async with gate:
            task = family.task("train", index)
            episode = await task.open()
            try:
                run = await run_agent(task, episode, ScriptedCompleter(oracle), KeepAll(), Sampling())
                return (await episode.grade(run.messages)).reward or 0.0
            finally:
                await episode.close()

    try:
        await one(0)
        began = time.perf_counter()
        rewards = await asyncio.gather(*map(one, range(count)))
        assert all(reward == 1.0 for reward in rewards), "the scripted repairer failed"
        return count / (time.perf_counter() - began)
    finally:
        await family.close()


async def overlay_rollouts(boxes: OverlaySandboxes, folder: Path, concurrency: int, count: int) -> float:
    """Rollouts per second of a scripted agent of four commands, each rollout in an overlay sandbox from a warm pool."""
    gate, spec = asyncio.Semaphore(concurrency), boxes.host(folder)
    script = ("ls", "cat file-0.txt", "echo more >> file-0.txt", "grep -c more file-0.txt")

    async with Pool(lambda: boxes.create(spec), min(concurrency, 16)) as pool:
        await pool.full()

        async def one(_: int) -> None:
            async with gate, await pool.take() as box:
                turns = [
                    Message(role="assistant", tool_calls=(ToolCall(name="bash", arguments={"command": c}),))
                    for c in script
                ]
                for turn in turns:
                    await box.exec(["bash", "-c", str(turn.tool_calls[0].arguments["command"])], 60)
                assert len(await box.changes()) == 1

        began = time.perf_counter()
        await asyncio.gather(*map(one, range(count)))
        return count / (time.perf_counter() - began)


def podman_image(wanted: str) -> str:
    """The image's name, or "" where podman cannot run it."""
    if not wanted or shutil.which("podman") is None:
        return ""
    probe = subprocess.run(
        ["podman", "run", "--rm", "--network", "none", wanted, "true"], capture_output=True, timeout=120, check=False
    )
    return wanted if probe.returncode == 0 else ""


async def measure(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    image = podman_image(options.podman)
    async with OverlaySandboxes() as boxes:
        found, rates = await one_by_one(boxes, folder, image, options.repeats)
        found["overlay: taken from the warm pool, exec true"] = await from_the_pool(boxes, folder, options.repeats)
        held = await alive_at_once(boxes, folder, options.alive)
        counts = {1: 20, 16: 100, 64: 200, 256: 400}
        swe = {concurrency: await rollouts(concurrency, count) for concurrency, count in counts.items()}
        overlay = {c: await overlay_rollouts(boxes, folder, c, max(20, count // 4)) for c, count in counts.items()}
    return {
        "milliseconds": {name: summary(values) for name, values in found.items()},
        "per_second": rates,
        "at_once": held,
        "swe_rollouts_per_second": swe,
        "overlay_rollouts_per_second": overlay,
        "podman": image or "not measured",
        "machine": {"cores": os.cpu_count(), "system": platform.release(), "load_before": options.load},
    }


async def one_by_one(
    boxes: OverlaySandboxes, folder: Path, image: str, repeats: int
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """(seconds by row, calls per second by row)."""
    spec = boxes.host(folder)

    async def cold() -> None:
        async with await boxes.create(spec) as fresh:
            await fresh.exec(["true"])

    async with ForkServer() as server, await boxes.create(spec) as box:
        job, contained = server.new_directory(), [*contained_python((), folder), "/bin/true"]
        rows: dict[str, Act] = {
            "subprocess: run true": lambda: command("/bin/true"),
            "bare bubblewrap: create, run true, destroy": lambda: command(*BARE, "true"),
            "bubblewrap as the fork server has it: create, run true, destroy": lambda: command(*contained),
            "overlay: exec true in a live sandbox": lambda: box.exec(["true"]),
            "overlay: exec bash -c in a live sandbox": lambda: box.exec(["bash", "-c", "echo x > y"]),
            "overlay: read a file": lambda: box.read("file-0.txt"),
            "overlay: create, exec true, destroy (cold, full limits)": cold,
            "fork server: run Python in a contained job": lambda: server.run(job, ["-c"], code="pass"),
        }
        async with live_container(image) as more:
            found = await latencies(rows | more, repeats)
        return found, {
            f"bare bubblewrap, {WORKERS} at a time": await rate(lambda: command(*BARE, "true"), WORKERS),
            f"overlay exec, {WORKERS} at a time in one sandbox": await rate(lambda: box.exec(["true"]), WORKERS),
            f"overlay create, exec, destroy, {WORKERS} at a time": await rate(cold, WORKERS),
            f"fork server, {WORKERS} at a time": await rate(lambda: server.run(job, ["-c"], code="pass"), WORKERS),
        }


@asynccontextmanager
async def live_container(image: str) -> AsyncIterator[dict[str, Act]]:
    """podman's rows, none without an image."""
    if not image:
        yield {}
        return
    live = f"arcforge-benchmark-{os.getpid()}"
    await command("podman", "run", "-d", "--rm", "--network", "none", "--name", live, image, "sleep", "3600")
    try:
        yield {
            "podman: exec true in a live container": lambda: command("podman", "exec", live, "true"),
            "podman: run --rm true": lambda: command("podman", "run", "--rm", "--network", "none", image, "true"),
        }
    finally:
        await command("podman", "rm", "-f", "-t", "0", live)


async def from_the_pool(boxes: OverlaySandboxes, folder: Path, repeats: int) -> list[float]:
    spec, waits = boxes.host(folder), []
    async with Pool(lambda: boxes.create(spec), 4) as pool:
        for _ in range(repeats):
            await pool.full()
            began = time.perf_counter()
            async with await pool.take() as taken:
                await taken.exec(["true"])
                waits.append(time.perf_counter() - began)
    return waits


def summary(values: list[float]) -> dict[str, float]:
    ordered = sorted(value * 1e3 for value in values)
    return {
        "median": statistics.median(ordered), "p90": ordered[int(0.9 * (len(ordered) - 1))], "least": ordered[0],
        "runs": len(ordered),
    }  # fmt: skip


def available_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 0


def table(result: dict[str, object]) -> str:
    times, rates, held = result["milliseconds"], result["per_second"], result["at_once"]
    assert isinstance(times, dict) and isinstance(rates, dict) and isinstance(held, dict)
    lines = ["| what | median ms | p90 ms | least ms |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {row['median']:.1f} | {row['p90']:.1f} | {row['least']:.1f} |" for name, row in times.items()
    ]
    lines += ["", "| what | per second |", "|---|---|"]
    lines += [f"| {name} | {value:.0f} |" for name, value in rates.items()]
    for name, key in (("swe rollouts", "swe_rollouts_per_second"), ("overlay rollouts", "overlay_rollouts_per_second")):
        by_concurrency = result[key]
        assert isinstance(by_concurrency, dict)
        lines += [f"| {name}, {concurrency} at once | {value:.1f} |" for concurrency, value in by_concurrency.items()]
    lines += [
        "",
        f"{held['alive']:.0f} sandboxes alive at once, {held['answered']:.0f} answered a command; all up after "
        f"{held['up_seconds']:.1f} s, gone after {held['close_seconds']:.1f} s more, {held['memory_mb']:.0f} MB.",
    ]
    lines += [f"podman: {result['podman']}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("sandbox-benchmark"))
    parser.add_argument("--podman", default="", help="an image with a shell, to measure podman beside it")
    parser.add_argument("--alive", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=30)
    options = parser.parse_args()
    options.load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(FILES):
            (folder / f"file-{number}.txt").write_text(f"{number}\n" * 50)
        result = asyncio.run(measure(options, folder))
    options.out.mkdir(parents=True, exist_ok=True)
    atomic_write(options.out / "result.json", json.dumps(result, indent=2) + "\n")
    atomic_write(options.out / "table.md", table(result))
    print(table(result))


if __name__ == "__main__":
    main()
