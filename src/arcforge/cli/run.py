from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

NAME = "run"
HELP = """Run a recipe's stages, or all of its record; the same command resumes.

\b
Examples:
  arcforge run recipes/laptop.toml
  arcforge run recipes/laptop.toml --dry-run
  arcforge run recipes/smoke.toml run.folder=runs/try run.seed=1
  arcforge run recipes/laptop-record.toml
  arcforge run recipes/laptop.toml --launcher ray ray.address=10.0.0.1:6379
"""


class Launcher(StrEnum):
    local = "local"
    ray = "ray"


def main(
    recipe: Annotated[Path, typer.Argument(help="A recipe, TOML.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[section.key=value]...")] = None,
    launcher: Annotated[
        Launcher,
        typer.Option(help="Where agentic RL's processes run; ray: the cluster at ray.address, else RAY_ADDRESS."),
    ] = Launcher.local,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and its cost; train nothing.")] = False,
) -> None:
    from arcforge.claims.record import run_record
    from arcforge.pipeline.recipe import load_recipe
    from arcforge.pipeline.run import run_recipe

    values = ["ray.address=auto", *(overrides or [])] if launcher is Launcher.ray else overrides or []
    run = run_recipe if load_recipe(recipe, values).record is None else run_record
    run(recipe, values, dry_run)
