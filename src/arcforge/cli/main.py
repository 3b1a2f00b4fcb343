"""`arcforge`: registers the verbs and turns what stops them into one line and an exit code.

Exit codes: 0 done, 2 the user can mend it (UserError, wrong usage, a full or unwritable disk), 130 interrupted. Anything
else is our mistake and shows its traceback.
"""

from __future__ import annotations

import os
import shlex
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from arcforge import __version__
from arcforge.cli import agent, chat, convert, env, eval, inspect, report, rl, route, run, serve, trace

SPIN_COUNT = "50000"  # about a tenth of a millisecond


class Verbs(TyperGroup):
    """Runs a verb; its end is an exit code."""

    def invoke(self, ctx: Any) -> Any:
        # Imported here, because pydantic behind it is a third of `arcforge --help`.
        from arcforge.core.errors import DISK, UserError

        # Read when torch is loaded. Between two pieces of work, OpenMP's threads spin this often and then sleep: with no
        # spinning, the second core gains nothing on small models; with the default, it starves whoever shares the cores.
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise _stop(str(error), 2) from None
        except OSError as error:
            if error.errno not in DISK:
                raise
            raise _stop(f"{error.filename or 'disk'}: {error.strerror}", 2) from None
        except KeyboardInterrupt:
            raise _stop(_interrupted(ctx.invoked_subcommand), 130) from None


app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="The GLM-5 recipe as one code base: from text to an agent, on a laptop or a cluster.",
)


@app.callback(invoke_without_command=True)
def root(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        typer.echo(f"arcforge {__version__}")
        raise typer.Exit


for verb in (run, chat, serve, route, agent, eval, convert, inspect, report, trace, rl):
    app.command(verb.NAME, help=verb.HELP)(verb.main)
app.add_typer(env.app, name=env.NAME)


def _stop(message: str, code: int) -> typer.Exit:
    typer.echo(" ".join(message.split("\n")), err=True)
    return typer.Exit(code)


def _interrupted(verb: str | None) -> str:
    if verb != "run":
        return "interrupted"
    return f"interrupted; the same command continues: arcforge {shlex.join(sys.argv[1:])}"
