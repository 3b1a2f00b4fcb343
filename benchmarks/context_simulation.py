"""Context policies compared in a SIMULATION: a scripted searcher that reads worse the longer its context is. No model runs.

    python benchmarks/context_simulation.py [--out FOLDER]

Every policy gets the same questions and seeds, in the agent loop that models run in. The searcher opens pages of a made-up
corpus; it recognises the right one with chance best / (1 + (tokens / half)^2) for the tokens of its request, and believes what
its visible reasoning says. The first of --half is the table; the others show how the outcome hangs on that one assumption.
Writes table.md and result.json to --out, after each half.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from arcforge.agents.policies import Hierarchical, KeepRecent
from arcforge.core.runs import atomic_write
from arcforge.evals.context_simulation.run import Outcome, Row, in_papers_order, policies, simulate, summed
from arcforge.evals.context_simulation.searcher import Reading
from arcforge.evals.context_simulation.world import World
from arcforge.evals.stats import mcnemar, paired_difference

HALVES = (32_768, 8_192, 16_384, 65_536, 262_144)


def markdown(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headers, ["---", *["---:"] * (len(headers) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def policy_table(rows: Sequence[Row]) -> str:
    """One line per policy; 95% intervals in brackets."""
    lines = [
        [
            row.policy,
            f"{row.accuracy.value:.1%} ({row.accuracy.low:.1%} to {row.accuracy.high:.1%})",
            f"{row.turns:.0f}",
            f"{row.tokens / 1e6:.2f}",
            f"{row.longest_context / 1e3:.0f}",
            f"{row.resets:.1f}",
            ", ".join(f"{reason} {count}" for reason, count in row.stop_reasons.items()),
        ]
        for row in rows
    ]
    headers = ["policy (simulated)", "accuracy", "turns", "tokens (M)", "longest context (k)", "resets", "ended by"]
    return markdown(headers, lines)


def half_table(results: Sequence[dict[str, Any]]) -> str:
    """Accuracy of each policy by the context at which the searcher reads half as well."""
    names = [row["policy"] for row in results[0]["rows"]]
    ordered = sorted(results, key=lambda result: result["half"])
    lines = [
        [f"{result['half']:,}", *(f"{row['accuracy']['value']:.0%}" for row in result["rows"]), str(result["runs"])]
        for result in ordered
    ]
    return markdown(["half the chance at (tokens)", *names, "runs each"], lines)


def result_of(half: float, outcomes: dict[str, list[Outcome]]) -> dict[str, Any]:
    rows = [summed(name, of_policy) for name, of_policy in outcomes.items()]
    before, after = ([float(one.correct) for one in outcomes[p.name]] for p in (KeepRecent, Hierarchical))
    return {
        "half": half,
        "runs": rows[0].runs,
        "rows": [row.model_dump() for row in rows],
        "in_papers_order": in_papers_order(rows),
        "hierarchical_minus_keep_recent": paired_difference(before, after).model_dump(),
        "mcnemar_p": mcnemar(before, after),
    }


def text_of(results: Sequence[dict[str, Any]]) -> str:
    first = results[0]
    gain = first["hierarchical_minus_keep_recent"]
    return "\n\n".join(
        [
            "**A simulation: a scripted searcher, no model.** It says how the policies work under its assumption, not how well"
            " a model does.",
            policy_table([Row.model_validate(row) for row in first["rows"]]),
            f"Hierarchical > keep-recent > keep-all: {'yes' if first['in_papers_order'] else 'NO'}. Hierarchical minus keep-recent "
            f"on the same questions: {gain['value']:+.1%} ({gain['low']:+.1%} to {gain['high']:+.1%}), "
            f"McNemar p = {first['mcnemar_p']:.2g}.",
            *([half_table(results)] if len(results) > 1 else []),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--half", nargs="+", type=int, default=list(HALVES), help="tokens at which half the chance is left"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(5)))
    parser.add_argument("--tasks", type=int, default=20, help="questions of each seed")
    parser.add_argument("--other-seeds", nargs="+", type=int, default=[0], help="seeds of the halves after the first")
    parser.add_argument("--keep", type=int, default=5)
    parser.add_argument("--threshold", type=int, default=32_768)
    parser.add_argument("--out", type=Path, default=Path("runs/context-simulation"))
    arguments = parser.parse_args()
    world, results = World(), []
    for number, half in enumerate(arguments.half):
        seeds = arguments.other_seeds if number else arguments.seeds
        makers = policies(arguments.keep, arguments.threshold)
        outcomes = simulate(world, Reading(half=half), makers, seeds=seeds, tasks=arguments.tasks)
        results.append(result_of(half, outcomes))
        settings = {name: value for name, value in vars(arguments).items() if name not in ("half", "out")}
        whole = {"simulation": True, "settings": settings, "world": asdict(world), "results": results}
        atomic_write(arguments.out / "result.json", json.dumps(whole, indent=1) + "\n")
        atomic_write(arguments.out / "table.md", text_of(results) + "\n")
    print(text_of(results))


if __name__ == "__main__":
    main()
