"""`arcforge env`: the environments there are, made, checked, run and written out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

NAME = "env"
HELP = "Environments: list, show, build, validate, run and export them."
_PODMAN = "Have podman build the image, FROM and all; else the Dockerfile is followed over this machine's system."
app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help=HELP)


@app.command("list")
def list_all() -> None:
    """The families of tasks, by the names that recipes and `arcforge eval` know.

    \b
    Example:
      arcforge env list
    """
    from arcforge.pipeline.environments import listing

    typer.echo(listing())


@app.command()
def show(
    family: Annotated[str, typer.Argument(help="A family's name, such as math:3 or terminal.")],
    index: Annotated[int, typer.Argument(min=0, help="Which of its tasks.")] = 0,
    split: Annotated[str, typer.Option(help="train, dev or test.")] = "train",
    seed: Annotated[int, typer.Option(help="Of the family.")] = 0,
) -> None:
    """One task as a model meets it: messages, tools, limits.

    \b
    Examples:
      arcforge env show swe 3
      arcforge env show math+python:5 --split test
    """
    from arcforge.pipeline.environments import shown

    typer.echo(shown(family, index, split, seed))


@app.command()
def build(
    name: Annotated[
        str, typer.Option(help="owner/name; or releases: pypi/NAME, npm/NAME, debian/SOURCE, up to one with @VERSION.")
    ],
    out: Annotated[Path, typer.Option(help="Where results, interpreter and manifest go; or the environments of one.")],
    repo: Annotated[Path | None, typer.Option(help="A clone of the repository, with its history.")] = None,
    manifest: Annotated[Path | None, typer.Option(help="A manifest's folder: its environments are made again.")] = None,
    task: Annotated[str, typer.Option(help="With --manifest: only this task; all if not given.")] = "",
    commits: Annotated[
        int, typer.Option(min=0, help="How many of the newest commits or releases are looked at.")
    ] = 1000,
    bugs: Annotated[int, typer.Option(min=0, help="How many bugs are injected.")] = 200,
    workers: Annotated[int, typer.Option(min=1, help="Test suites at a time.")] = 1,
    minutes: Annotated[float, typer.Option(min=0.0, help="Start no new ones after so long; 0: no limit.")] = 0.0,
    model: Annotated[
        str, typer.Option(help="An OpenAI-style URL: asked how to set the project up where rules do not find out.")
    ] = "",
    index: Annotated[str, typer.Option(help="Where releases are; PyPI, npm's registry or Debian if not given.")] = "",
    language: Annotated[
        str, typer.Option(help="python, c, cpp, go, java, javascript, typescript, php or ruby, if it cannot be told.")
    ] = "",
) -> None:
    """Software environments of a repository: from its history and, in Python, by injected bugs, each measured twice.

    The same command goes on where it ended. Without a clone, releases of pypi/NAME, npm/NAME or a Debian source package are read: a
    commit for each, and what one of its files changed as a task. A clone is in Python if --language says nothing else. With
    --manifest, the named environments are made again: a folder each, with what the agent gets, the statement, the hidden tests and
    the solution beside it.

    \b
    Examples:
      arcforge env build --repo click --name pallets/click --out built --bugs 50 --workers 2
      arcforge env build --repo click --name pallets/click --manifest built/manifest --out environments
      arcforge env build --name pypi/toolz --out built --commits 30 --workers 2
      arcforge env build --name debian/golang-github-spf13-cast --out built
    """
    from arcforge.pipeline import manifests

    if manifest is not None:
        typer.echo(manifests.rebuild(repo, name, manifest, out, task, index))
    else:
        typer.echo(manifests.build(repo, name, out, commits, bugs, workers, minutes * 60, model, index, language))


@app.command()
def admit(
    manifest: Annotated[Path, typer.Argument(help="A manifest's folder.")],
    name: Annotated[str, typer.Option(help="Only of this repository, owner/name.")] = "",
    sample: Annotated[int, typer.Option(min=0, help="So many, drawn at random; 0: all.")] = 0,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    in_flight: Annotated[int, typer.Option(min=1, help="Environments at a time.")] = 2,
    cache: Annotated[
        Path | None, typer.Option(help="Where trees and interpreters are kept; ~/.cache/arcforge/swe if not given.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="A file for every outcome, JSON lines.")] = None,
    index: Annotated[str, typer.Option(help="The package index of pypi/NAME (PEP 691); PyPI if not given.")] = "",
) -> None:
    """Hold environments of a manifest to what they must withstand. Exit code 1: one is not fit.

    The solution must pass twice, an untouched repository fail, and nothing that an agent may try instead score: a forged report,
    an early exit, edited tests, planted modules, a daemon, the history.

    \b
    Example:
      arcforge env admit built/manifest --name pypi/toolz --sample 20
    """
    from arcforge.pipeline.manifests import admitted

    text, unfit = admitted(manifest, name, sample, seed, in_flight, cache, out, index)
    typer.echo(text)
    if unfit:
        raise typer.Exit(1)


@app.command()
def validate(
    tasks: Annotated[list[Path], typer.Argument(help="Folders of Harbor tasks, or folders that hold them.")],
    oracle_runs: Annotated[int, typer.Option(min=1, help="How often the solution must pass.")] = 2,
    in_flight: Annotated[int, typer.Option(min=1, help="Tasks at a time.")] = 2,
    podman: Annotated[bool, typer.Option("--podman", help=_PODMAN)] = False,
) -> None:
    """Admit tasks: the solution passes, doing nothing fails, no probe scores. Exit code 1: one is not fit.

    \b
    Example:
      arcforge env validate tasks/
    """
    from arcforge.pipeline.environments import validated

    text, unfit = validated(tasks, oracle_runs, in_flight, podman)
    typer.echo(text)
    if unfit:
        raise typer.Exit(1)


@app.command()
def run(
    task: Annotated[Path, typer.Argument(help="The folder of a Harbor task.")],
    model: Annotated[
        str, typer.Option(help="An OpenAI-style URL (its key: OPENAI_API_KEY); oracle or nop.")
    ] = "oracle",
    name: Annotated[str, typer.Option(help="The model's name at the URL; its first if not given.")] = "",
    context: Annotated[
        str, typer.Option(help="What it sees: keep-all, keep-recent, discard-all, hierarchical or summary.")
    ] = "hierarchical",
    trajectory: Annotated[Path | None, typer.Option(help="A folder for its run, as ATIF 1.8.")] = None,
    podman: Annotated[bool, typer.Option("--podman", help=_PODMAN)] = False,
) -> None:
    """Run one Harbor task in a sandbox and print its reward. Exit code 1: there is none.

    \b
    Examples:
      arcforge env run tasks/csv-1-00000
      arcforge env run tasks/csv-1-00000 --model http://127.0.0.1:8000/v1 --trajectory run
    """
    from arcforge.pipeline.environments import run_task

    text, judged = run_task(task, model, name, context, trajectory, podman)
    typer.echo(text)
    if not judged:
        raise typer.Exit(1)


@app.command()
def export(
    out: Annotated[Path, typer.Option(help="The folder that the tasks' folders are written to.")],
    family: Annotated[str, typer.Option(help="A terminal generator, handwritten, or all generators in turn.")] = "all",
    count: Annotated[int, typer.Option(min=1, help="How many generated tasks.")] = 23,
    seed: Annotated[int, typer.Option(min=0, help="The first seed.")] = 0,
    format: Annotated[
        str, typer.Option(help="harbor; for a manifest's environments also swebench and repolaunch.")
    ] = "harbor",
    repo: Annotated[Path | None, typer.Option(help="With --manifest: a clone of the repository.")] = None,
    name: Annotated[str, typer.Option(help="With --manifest: the repository's name, owner/name.")] = "",
    manifest: Annotated[Path | None, typer.Option(help="The folder of a manifest of software environments.")] = None,
    task: Annotated[str, typer.Option(help="With --manifest: only this task; all if not given.")] = "",
    network: Annotated[
        str, typer.Option(help="no-network, or public where the Harbor that runs them cannot cut it off.")
    ] = "no-network",
) -> None:
    """Write tasks in the formats of others, each with its tests and solution.

    Terminal tasks in Harbor's; software environments (--manifest), measured again as they are written, in Harbor's too, as SWE-bench's
    dataset rows (swebench.jsonl) or as RepoLaunch's result.json, with the image's context of each.

    \b
    Examples:
      arcforge env export --out tasks --count 100
      arcforge env export --out tasks --family handwritten --network public
      arcforge env export --format swebench --repo click --name pallets/click --manifest built/manifest --out rows
    """
    from arcforge.pipeline import environments, swe_exports

    if format == "harbor" and manifest is None:
        typer.echo(environments.exported(out, family, count, seed, network))
        return
    typer.echo(swe_exports.exported_environments(format, repo, name, manifest, out, task))


@app.command()
def synthesize(
    out: Annotated[
        Path, typer.Option(help="A folder for the tasks, the drafts and the ledger; the next call goes on there.")
    ],
    seeds: Annotated[
        Path | None, typer.Option(help="A file with a seed a line: a topic, or `task: FOLDER` for a Harbor task.")
    ] = None,
    pages: Annotated[
        list[Path] | None, typer.Option(help="A folder of pages (manual pages, HTML, Markdown, text); may be repeated.")
    ] = None,
    most_pages: Annotated[int, typer.Option(min=0, help="Read at most so many of the pages, drawn; 0: all.")] = 0,
    model: Annotated[
        str,
        typer.Option(
            help="Builds tasks: a run or checkpoint folder, or an OpenAI-style URL (its key: OPENAI_API_KEY)."
        ),
    ] = "",
    plan: Annotated[
        bool, typer.Option("--plan", help="Only what needs no model: which pages or seeds there are.")
    ] = False,
    count: Annotated[int, typer.Option(min=1, help="How many tasks are wanted.")] = 10,
    name: Annotated[str, typer.Option(help="The model's name at the URL; its first if not given.")] = "",
    judge: Annotated[str, typer.Option(help="Another model that judges by the rubric, as --model.")] = "",
    drafts: Annotated[int, typer.Option(min=1, help="Drafts asked for of each seed.")] = 4,
    rounds: Annotated[int, typer.Option(min=1, help="Answers for one task, at most.")] = 4,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of one answer.")] = 8192,
    in_flight: Annotated[int, typer.Option(min=1, help="Tasks at a time.")] = 2,
    seed: Annotated[int, typer.Option(min=0, help="Of the models' sampling.")] = 0,
) -> None:
    """Terminal tasks that a model writes: kept when the sandbox admits them and none of eleven criteria fails.

    From seeds, of which it thinks of drafts, or from pages, chosen by quality, suitability, topic and difficulty. The same
    command goes on where it ended and asks for nothing that is finished.

    \b
    Examples:
      arcforge env synthesize --seeds topics.txt --model http://127.0.0.1:8000/v1 --out synthesized --count 100
      arcforge env synthesize --pages /usr/share/man --out planned --count 100 --plan
      arcforge env synthesize --pages /usr/share/man --model http://127.0.0.1:8000/v1 --out from-pages --count 100
    """
    from arcforge.envs.terminal.synthesis.factory import SynthesisSettings
    from arcforge.pipeline.synthesis import PageFolders, Writer, synthesized

    settings = SynthesisSettings(count=count, drafts=drafts, rounds=rounds, in_flight=in_flight, seed=seed)
    writer = None if plan else Writer(model, name, judge, max_tokens)
    typer.echo(synthesized(seeds, PageFolders(pages or [], most_pages), writer, out, settings))
