from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

NAME = "report"
HELP = """Write a run's report.html and print its tables.

A run that is still going gives a report of what is there.

\b
Examples:
  arcforge report runs/laptop
"""


def main(run: Annotated[Path, typer.Argument(help="A run folder.")]) -> None:
    from arcforge.view.report import write_report
    from arcforge.view.table import summary

    path = write_report(run)
    typer.echo(f"{summary(run)}\n\n{path}")
