"""Ways of being unfit that only a probe finds, what an agent can reach in bubblewrap, and which Dockerfiles are followed."""

import asyncio
from dataclasses import replace

import pytest

from arcforge.core.errors import TaskError, UserError, VerifierError
from arcforge.envs.terminal.admission import admit
from arcforge.envs.terminal.dockerfile import recipe
from arcforge.envs.terminal.draft import Draft, build
from arcforge.envs.terminal.harbor import EnvironmentPart, VerifierPart
from arcforge.envs.terminal.sandboxes import SandboxRunner
from arcforge.envs.terminal.verdict import verdict
from arcforge.sandbox.host import bubblewrap_works

needs_bubblewrap = pytest.mark.skipif(not bubblewrap_works(), reason="bubblewrap does not work here")
CHECK = {"kind": "text", "path": "out.txt", "text": "hello\n"}
DRAFT = Draft("Write hello to /app/out.txt.", "echo hello > out.txt", [CHECK], {"in.txt": "x\n"})
TASK = build("hello", DRAFT, {})
TRUSTING = b"cd /app\nif grep -q hello out.txt; then echo 1 > /logs/verifier/reward.txt; else echo 0 > /logs/verifier/reward.txt; fi\n"


def changed(name, content):
    return replace(TASK, files={**TASK.files, name: content})


UNFIT = {
    "nothing scores 1": build("given", replace(DRAFT, files={"out.txt": "hello\n"}), {}),
    "does not judge an untouched": changed(
        "tests/test.sh", b"grep -q hello /app/out.txt && echo 1 > /logs/verifier/reward.txt\n"
    ),
    "hollow-files scores 1": build(
        "hollow", replace(DRAFT, solution=": > out.txt", checks=[{**CHECK, "text": ""}]), {}
    ),
    "planted-python scores 1": changed(
        "tests/test.sh", b"cd /app; python3 /tests/check.py; python3 -c 'import conftest' || true\n"
    ),
    "shadowed-tools scores 1": changed("tests/test.sh", TRUSTING + b"PATH=/app:$PATH cat in.txt\n"),
    "environment: Dockerfile: USER": changed("environment/Dockerfile", b"FROM x\nWORKDIR /app\nUSER me\n"),
    "environment: Dockerfile: RUN false": changed("environment/Dockerfile", b"FROM x\nWORKDIR /app\nRUN false\n"),
}


@needs_bubblewrap
@pytest.mark.parametrize("reason", UNFIT)
def test_each_way_of_being_unfit_is_found(reason):
    found = asyncio.run(admitted(UNFIT[reason]))
    assert not found.admitted and reason in found.reason, found


async def admitted(task):
    async with SandboxRunner() as runner:
        return await admit(task, runner, 1)


async def attempt_of(task, *scripts):
    async with SandboxRunner() as runner, runner.image(task) as image, image.attempt() as attempt:
        done = [await attempt.act(script, timeout=seconds) for script, seconds in scripts]
        return done, await attempt.verify()


@needs_bubblewrap
def test_what_the_agent_can_reach_and_what_the_tests_get():
    """No network, its processes gone; the tests get its files and none of its other traces."""
    script = """echo 1 > /logs/verifier/reward.txt
echo x > /usr/local/bin/tool; echo x > $HOME/trace; mkdir -p d && echo kept > d/kept; chmod 600 d/kept; ln -s kept d/link
touch /usr/bin/no; (: < /dev/tcp/127.0.0.1/22) 2>/dev/null && echo net
[ -e /tests ] && echo tests; [ -e /solution ] && echo solution; (setsid tail -f /dev/null > /dev/null 2>&1 &)
whoami"""
    look = b"""[ "$(cat /app/d/kept)" = kept ] && [ "$(stat -c %a /app/d/kept)" = 600 ] && [ "$(readlink /app/d/link)" = kept ] || exit 3
if [ -e /usr/local/bin/tool ] || [ -e /usr/bin/no ] || [ -e $HOME/trace ] || [ -e /logs/verifier/reward.txt ]; then exit 4; fi
cat /proc/[0-9]*/comm | grep -qx tail && exit 5
echo 1 > /logs/verifier/reward.txt
"""
    (done, slow), verified = asyncio.run(attempt_of(changed("tests/test.sh", look), (script, 60), ("sleep 30", 0.5)))
    assert done.stdout == "root\n" and done.exit_code == 0
    assert slow.timed_out and slow.seconds < 10
    assert verdict(verified).reward == 1.0, verified


@needs_bubblewrap
def test_variables_and_the_working_directory_of_task_toml(monkeypatch):
    """What a variable of this machine holds is told to no task."""
    monkeypatch.setenv("SECRET", "secret")
    part = EnvironmentPart(workdir="/app/sub", env={"ONE": "1", "TWO": "${SECRET:-two}"})
    task = replace(TASK, config=TASK.config.model_copy(update={"environment": part}))
    (done,), _ = asyncio.run(attempt_of(task, ("echo $ONE $TWO; pwd", 60)))
    assert done.stdout == "1 two\n/app/sub\n"
    part = EnvironmentPart(env={"ONE": "${SECRET}"})
    found = asyncio.run(admitted(replace(TASK, config=TASK.config.model_copy(update={"environment": part}))))
    assert found.reason == "environment: task.toml: it wants the variable SECRET of this machine"


@needs_bubblewrap
def test_a_verifier_that_hangs_is_no_zero():
    config = TASK.config.model_copy(update={"verifier": VerifierPart(timeout_sec=0.5)})
    task = replace(changed("tests/test.sh", b"sleep 30\n"), config=config)
    with pytest.raises(VerifierError, match="in time"):
        verdict(asyncio.run(attempt_of(task))[1])


def test_without_bubblewrap_one_line_says_so(monkeypatch):
    monkeypatch.setenv("PATH", "")
    bubblewrap_works.cache_clear()
    try:
        with pytest.raises(UserError, match="bubblewrap is not installed"):
            SandboxRunner()
    finally:
        bubblewrap_works.cache_clear()


def test_the_part_of_a_dockerfile_that_is_followed():
    found = recipe(
        "# a\nFROM x\nRUN apt-get update && \\\n  apt-get install -y git\nENV A=1 B='two words'\nENV C d e\nWORKDIR /app\n"
        "WORKDIR sub\nCOPY one two/ ./\nRUN echo \\\n  hi\nCMD x\n"
    )
    assert found.workdir == "/app/sub" and found.env == {"A": "1", "B": "two words", "C": "d e"}
    assert [step[:2] for step in found.steps] == [("copy", "one"), ("copy", "two/"), ("run", "echo    hi")]
    followed = recipe(
        "FROM x\nRUN DEBIAN_FRONTEND=x apt-get install -y a && ln -s a b && rm -rf /var/lib/apt/lists/*\n"
    )
    assert followed.steps == [("run", "ln -s a b", "/")]
    for text in ("ADD http://example.com /x", "COPY --from=build /x /y", "USER nobody"):
        with pytest.raises(TaskError, match="not followed"):
            recipe(f"FROM x\n{text}\n")
