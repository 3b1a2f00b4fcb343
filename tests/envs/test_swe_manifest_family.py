"""Environments of a manifest as tasks: worked on in sandboxes, graded by tests that the agent cannot reach, and what it may try."""

import asyncio
import subprocess

import pytest
from small_repository import small_repository, this_interpreter

from arcforge.core.errors import TaskError, UserError, VerifierError
from arcforge.core.messages import ToolCall
from arcforge.envs.registry import family
from arcforge.envs.swe.builder.checkouts import ProcessCheckouts
from arcforge.envs.swe.builder.factory import BuildSettings, build_repository
from arcforge.envs.swe.builder.interpreter import keep
from arcforge.envs.swe.built.admission import admit
from arcforge.envs.swe.built.family import ManifestFamily
from arcforge.envs.swe.built.places import Places
from arcforge.sandbox.host import bubblewrap_works

pytestmark = pytest.mark.skipif(not bubblewrap_works(), reason="bubblewrap is not installed or may not make namespaces")
NAME = "corner/shop"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """(a manifest's folder with the clone beside it, a cache that holds this interpreter)."""
    folder = tmp_path_factory.mktemp("manifest")
    small_repository(folder / "manifest/clones/corner+shop")
    settings = BuildSettings(bugs=4, workers=2, seconds=30)
    clone = folder / "manifest/clones/corner+shop"
    build_repository(clone, NAME, folder, settings, this_interpreter(), ProcessCheckouts())
    (folder / "cache/corner+shop/venv").mkdir(parents=True)
    keep(this_interpreter(), folder / "cache/corner+shop/venv")
    return folder / "manifest", folder / "cache"


@pytest.fixture
def world(manifest):
    made = ManifestFamily(0, Places(*manifest))
    yield made
    asyncio.run(made.close())


def tasks(world):
    """Those of the one repository, by source."""
    split = next(split for split in ("train", "dev", "test") if world._rows[split])
    found = [world.task(split, index) for index in range(len(world._rows[split]))]
    return {source: [task for task in found if task.domain == source] for source in world.domains}


async def attempt(task, *commands):
    episode = await task.open()
    try:
        said = [await episode.call(ToolCall(id="1", name="bash", arguments={"command": text})) for text in commands]
        return (await episode.grade()), said
    finally:
        await episode.close()


def run(world, *commands, source="commit", pick=lambda task: "cheapest" in task.messages[1].content):
    async def all_of_it():
        task = next(task for task in tasks(world)[source] if pick(task))
        try:
            return await attempt(task, *commands)
        finally:
            await world.close()

    return asyncio.run(all_of_it())


MEND = "sed -i 's/\\[: count - 1\\]/[:count]/' shop/prices.py"


def test_a_right_change_is_rewarded_and_the_agent_sees_its_own_tests(world):
    verdict, (before, _, after, log) = run(
        world, "python -m pytest -q 2>&1 | tail -1", MEND, "python -c 'from shop.prices import *; print(cheapest([3, 1]))'",
        "git log --oneline | wc -l; ls tests; grep -c cheapest tests/test_prices.py",
    )  # fmt: skip
    assert verdict.reward == 1.0 and not verdict.details
    assert "passed" in before and "failed" not in before and after.startswith("[1]")
    assert (
        log.split() == ["1", "test_prices.py", "test_text.py", "0"] or "exit code 1" in log
    )  # the hidden tests are not there


def test_an_untouched_and_a_broken_repository_score_nothing_and_say_what_is_missed(world):
    verdict, _ = run(world)
    assert verdict.reward == 0.0 and len(verdict.details["fail_to_pass"]) == 2 and "pass_to_pass" not in verdict.details
    verdict, _ = run(world, MEND, "sed -i 's/100 + tax/100 - tax/' shop/prices.py")
    assert verdict.reward == 0.0 and verdict.details["pass_to_pass"] == ["tests/test_prices.py::test_tax"]
    verdict, _ = run(world, "echo 'def (' >> shop/prices.py")
    assert verdict.reward == 0.0


def test_what_the_agent_does_beside_the_source_does_not_count(world):
    verdict, _ = run(
        world, MEND, "echo 'import os; os._exit(1)' | tee conftest.py pytest.py json.py tests/test_prices.py > sitecustomize.py",
        "rm -r tests/test_text.py; ln -s /etc tests/other; echo ok > notes.txt; head -c 2000000 /dev/zero > big.bin",
    )  # fmt: skip
    assert verdict.reward == 1.0
    assert {"conftest.py", "pytest.py", "json.py", "sitecustomize.py", "tests/test_prices.py", "big.bin"} <= set(
        verdict.details["ignored"]
    ) and "notes.txt" not in verdict.details["ignored"]


def test_links_removals_and_modes_of_the_source_are_part_of_the_work(world):
    verdict, _ = run(
        world, MEND, "mv shop/prices.py shop/kept.py && ln -s kept.py shop/prices.py && chmod 755 shop/kept.py"
    )
    assert verdict.reward == 1.0
    verdict, _ = run(world, MEND, "rm shop/text.py")
    assert verdict.reward == 1.0  # nobody's test of this task
    verdict, _ = run(world, MEND, "rm shop/__init__.py shop/prices.py")
    assert verdict.reward == 0.0
    verdict, _ = run(world, "rm -r shop && echo 'no folder any more' > shop")
    assert verdict.reward == 0.0 and len(verdict.details["fail_to_pass"]) == 2
    verdict, _ = run(
        world, MEND, "mv shop/text.py t && mkdir shop/text.py && mv t shop/text.py/__init__.py && touch shop/more.py"
    )
    assert verdict.reward == 1.0


def test_an_endless_loop_is_the_agents_failure_and_a_broken_machine_is_nobodys(world, monkeypatch):
    monkeypatch.setattr("arcforge.envs.swe.built.grading.TEST_SECONDS", 6.0)
    verdict, _ = run(world, "echo 'while True: pass' >> shop/prices.py")
    assert verdict.reward == 0.0 and "timeout" in verdict.details["problem"]
    monkeypatch.setattr("arcforge.envs.swe.built.grading.TEST_SECONDS", 0.05)
    with pytest.raises(VerifierError, match="the solution's tests: timeout"):
        run(world, MEND)


@pytest.mark.slow
def test_every_environment_is_admitted_and_no_probe_scores(world):
    async def all_of_it():
        admissions = []
        for found in tasks(world).values():
            for task in found[:1]:
                episode = await task.open()
                await episode.close()
                admissions.append(await admit(task.places.prepare(task.row), task.boxes))
        await world.close()
        return admissions

    admissions = asyncio.run(all_of_it())
    assert len(admissions) == 2
    for admission in admissions:
        assert admission.admitted, admission
        assert admission.outcomes.pop("solution-1") == admission.outcomes.pop("solution-2") == 1.0
        assert len(admission.outcomes) == 8 and set(admission.outcomes.values()) == {0.0}


def test_a_demonstration_is_the_solution_and_passes(world, monkeypatch):
    split = next(split for split in ("train", "dev", "test") if world._rows[split])
    world._rows["train"] = world._rows[split]
    shown = world.demonstration(0)
    (call,) = shown.messages[2].tool_calls

    async def follow():
        verdict, _ = await attempt(world.task("train", 0), call.arguments["command"])
        await world.close()
        return verdict

    assert (
        asyncio.run(follow()).reward == 1.0 and shown.messages[1].content == world.task("train", 0).messages[1].content
    )


def test_what_does_not_measure_as_published_is_no_task(manifest, tmp_path):
    other = tmp_path / "manifest"
    subprocess.run(["cp", "-r", manifest[0], other], check=True)
    path = other / "corner+shop.jsonl"
    path.write_text(path.read_text().replace('"pass_to_pass_sha256":"', '"pass_to_pass_sha256":"0'))
    (tmp_path / "cache/corner+shop/venv").mkdir(parents=True)
    keep(this_interpreter(), tmp_path / "cache/corner+shop/venv")
    places = Places(other, tmp_path / "cache")
    with pytest.raises(TaskError, match="differs"):
        places.prepare(places.rows()[0])
    places.close()


def test_the_registry_knows_manifests_and_tells_what_is_none(manifest, tmp_path):
    assert family(f"manifest:{manifest[0]}").name == f"manifest:{manifest[0]}"
    with pytest.raises(UserError, match="no manifest here"):
        family(f"manifest:{tmp_path}")
