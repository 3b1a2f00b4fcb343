"""A manifest of measured software environments from many projects' releases, and whether a sample of it still measures the same.

    python benchmarks/swe_manifest.py build --projects environments/swe/projects.txt --work runs/swe --minutes 60
    python benchmarks/swe_manifest.py collect --work runs/swe --manifest environments/swe
    python benchmarks/swe_manifest.py table --work runs/swe --out yields.json
    python benchmarks/swe_manifest.py validate --manifest environments/swe --sample 200 --work runs/swe-again --out agreement.json

`build` takes the projects in order (NAME for pypi/NAME, npm/NAME or debian/SOURCE, @VERSION for releases up to that one; a language may
follow, and NAME=VALUE for its suite),
goes on where it ended, and leaves the shards in WORK/manifest. `collect` puts those that have more rows into
a manifest. `validate` draws rows of all shards alike, assembles their projects anew and measures every row twice in both states.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from arcforge.core.errors import UserError
from arcforge.core.runs import atomic_write
from arcforge.envs.swe.builder.archives import Release
from arcforge.envs.swe.builder.checkouts import best_checkouts
from arcforge.envs.swe.builder.clone import Clone
from arcforge.envs.swe.builder.factory import BuildSettings, Ledger, build_repository
from arcforge.envs.swe.builder.layout import language_of
from arcforge.envs.swe.builder.manifest import TaskRow, read_shard, shard_name, write_shard
from arcforge.envs.swe.builder.rebuild import AGREES, clone_of, restore, validate_rows
from arcforge.envs.swe.builder.rejection import Rejected
from arcforge.envs.swe.builder.releases import assemble, source_of, up_to
from arcforge.envs.swe.builder.suite import Suite
from arcforge.envs.swe.builder.yields import VALID, Yield, count_outcomes, table

ACCOUNT = "account.json"


def build(arguments: argparse.Namespace) -> None:
    ends = time.monotonic() + 60 * arguments.minutes
    names = [line.split("#")[0].strip() for line in arguments.projects.read_text().splitlines()]
    for name in filter(None, names):
        left = ends - time.monotonic()
        if left < 30:
            break
        name, *told = name.split()
        language, *variables = told or [""]
        name, last = up_to(name if "/" in name else f"pypi/{name}")
        place = arguments.work / shard_name(name)
        if (place / ACCOUNT).exists():
            continue
        try:
            source, project = source_of(name)
            found = source.releases(project, arguments.releases, last)
            clone = assemble(source, project, found, place / "releases")
            spoken = language or language_of(Clone(clone).paths("HEAD"))
            finished = _build_project(name, clone, found, spoken, variables, arguments, ends)
        except (UserError, Rejected) as error:
            print(f"{name}: {error}", file=sys.stderr)
            continue
        if finished:
            shutil.rmtree(place / "venv", ignore_errors=True)


def _build_project(
    repository: str, clone: Path, found: Sequence[Release], language: str, variables: Sequence[str],
    arguments: argparse.Namespace, ends: float,
) -> bool:  # fmt: skip
    """By slices of its minutes, as long as they give enough. False when the clock of the whole build ended it."""
    stops = time.monotonic() + 60 * arguments.project_minutes
    while (left := ends - time.monotonic()) > 30:
        budget = min(left, arguments.slice_seconds)
        account = build_repository(
            clone, repository, arguments.work,
            BuildSettings(
                bugs=arguments.bugs, workers=arguments.workers, seconds=arguments.seconds,
                suite_seconds=arguments.suite_seconds, budget=budget,
            ),
            releases=found, language=language, variables=variables,
        )  # fmt: skip
        print(
            f"{table([account])}\n{account.per_hour:.0f} an hour, installed in {account.install_seconds:.0f} s\n",
            flush=True,
        )
        ended = account.seconds < budget  # with its last candidate
        if ended or time.monotonic() > stops or account.per_hour < arguments.least:
            atomic_write(arguments.work / shard_name(repository) / ACCOUNT, account.model_dump_json(indent=1) + "\n")
            return True
    return False


def collect(arguments: argparse.Namespace) -> None:
    """Mined environments before injected ones, should there be too many of a project."""
    for name in _repositories(arguments.work / "manifest"):
        environment, rows = read_shard(arguments.work / "manifest", name)
        rows = sorted(rows, key=lambda row: row.source == "bug")[: arguments.most]
        held = read_shard(arguments.manifest, name)[1] if name in _repositories(arguments.manifest) else []
        if _worth(rows) > _worth(held):
            write_shard(arguments.manifest, environment, rows)
            print(f"{name}: {len(rows)}, {len(held)} before")


def _worth(rows: Sequence[TaskRow]) -> tuple[int, int]:
    return len(rows), sum(row.source != "bug" for row in rows)


def _repositories(manifest: Path) -> list[str]:
    names = (path.name.removesuffix(".environment.json") for path in manifest.glob("*.environment.json"))
    return sorted(name.replace("+", "/", 1) for name in names)


def tabulate(arguments: argparse.Namespace) -> None:
    """The account over all projects, from the ledgers."""
    accounts, total = [], Counter[str]()
    for path in sorted(arguments.work.glob("*/results.jsonl")):
        rows, name = Ledger(path).rows(), path.parent.name.replace("+", "/", 1)
        seconds = sum(row.get("seconds", 0.0) for row in rows)
        accounts.append(
            Yield(
                repository=name, outcomes=count_outcomes(rows), sifted={}, measured=len(rows),
                valid=sum(row["outcome"] == VALID for row in rows), install_seconds=0.0, seconds=seconds,
            )
        )  # fmt: skip
        total.update(f"{row['source']} {row['outcome']}" for row in rows)
    print(table(accounts))
    rows = {"outcomes": dict(total.most_common()), "projects": [account.model_dump() for account in accounts]}
    atomic_write(arguments.out, json.dumps(rows, indent=1) + "\n")


def validate(arguments: argparse.Namespace) -> None:
    everything = [
        (name, row) for name in _repositories(arguments.manifest) for row in read_shard(arguments.manifest, name)[1]
    ]
    drawn = random.Random(arguments.seed).sample(everything, min(arguments.sample, len(everything)))
    outcomes: Counter[str] = Counter()
    checkouts = best_checkouts()
    rows = {name: [row for owner, row in drawn if owner == name] for name in sorted({name for name, _ in drawn})}
    try:
        with ThreadPoolExecutor(arguments.workers) as pool:
            done = pool.map(lambda name: _again(name, rows[name], arguments, checkouts), rows)
            for name, found in zip(rows, done):
                outcomes.update(found)
                print(f"{name}: {found}, together {dict(outcomes)}", flush=True)
    finally:
        checkouts.close()
    result = {
        "rows": len(drawn), "of": len(everything), "agree": outcomes[AGREES], "outcomes": dict(outcomes.most_common()),
        "sources": Counter(row.source for _, row in drawn), "projects": len(rows),
    }  # fmt: skip
    print(json.dumps(result, indent=1))
    atomic_write(arguments.out, json.dumps(result, indent=1) + "\n")


def _again(name: str, rows: list[TaskRow], arguments: argparse.Namespace, checkouts) -> dict[str, int]:
    environment, _ = read_shard(arguments.manifest, name)
    place = arguments.work / shard_name(name)
    clone = clone_of(environment, place / "releases")
    try:
        setup = restore(environment, clone, place / "venv")
    except Rejected as error:
        return {error.reason: len(rows)}
    agreement = validate_rows(rows, Suite(clone, setup, checkouts, arguments.seconds))
    shutil.rmtree(place / "venv", ignore_errors=True)
    return agreement.outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("build")
    verb.add_argument("--projects", type=Path, required=True, help="one project a line")
    verb.add_argument("--minutes", type=float, default=60.0)
    verb.add_argument("--project-minutes", type=float, default=12.0)
    verb.add_argument("--least", type=float, default=0.0, help="a project that gives fewer an hour is left, as it is")
    verb.add_argument(
        "--slice-seconds", type=float, default=90.0, help="after which the rate is looked at and the shard written"
    )
    verb.add_argument("--releases", type=int, default=40)
    verb.add_argument("--bugs", type=int, default=300)
    verb.add_argument("--suite-seconds", type=float, default=300.0, help="for the one run of a whole suite")
    verb.set_defaults(call=build)
    verb = verbs.add_parser("collect")
    verb.add_argument("--manifest", type=Path, required=True)
    verb.add_argument("--most", type=int, default=500, help="environments of one project")
    verb.set_defaults(call=collect)
    verb = verbs.add_parser("table")
    verb.set_defaults(call=tabulate)
    verb = verbs.add_parser("validate")
    verb.add_argument("--manifest", type=Path, required=True)
    verb.add_argument("--sample", type=int, default=200)
    verb.add_argument("--seed", type=int, default=0)
    verb.set_defaults(call=validate)
    for name, verb in verbs.choices.items():
        verb.add_argument("--work", type=Path, required=True)
        verb.add_argument("--workers", type=int, default=2, help="suites of a project at a time; of validate, projects")
        verb.add_argument("--seconds", type=float, default=60.0, help="for one run of chosen test files")
        if name in ("table", "validate"):
            verb.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.call(arguments)


if __name__ == "__main__":
    main()
