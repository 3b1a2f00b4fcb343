"""git and patches."""

from __future__ import annotations

import difflib
import random
from collections import Counter
from typing import Any

from arcforge.envs.terminal.draft import Draft, sha256
from arcforge.envs.terminal.families.pools import FAMILY_NAMES, PEOPLE, WORDS, moment, sentence

_GIT = "/usr/bin/git"
_SAFE = ["-c", "safe.directory=*", "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-C", "/app/repo"]


def git(rng: random.Random, level: int) -> Draft:
    """Questions to a history, then an operation on it."""
    authors = [f"{a} {b}" for a, b in zip(rng.sample(PEOPLE, 3), rng.sample(FAMILY_NAMES, 3))]
    now, names = moment(rng), [f"{word}.txt" for word in rng.sample(WORDS, 4)]
    secret = f"{rng.choice(WORDS).upper()}_{rng.randint(1000, 9999)}"
    count = 6 + 6 * level
    holds = rng.randint(2, count - 3)
    script = ["git init -q -b main repo", "cd repo", "git config user.name x; git config user.email x@example.com"]
    commits: list[tuple[str, str]] = []
    for number in range(count):
        author, name, subject = rng.choice(authors), rng.choice(names), f"{sentence(rng, 2, 4)} {number}"
        line = f"token {secret}" if number == holds else sentence(rng)
        when = f"@{int(now.timestamp()) + number * 3600} +0000"
        if number == holds + 1:  # the next commit takes it out again
            name = commits[-1][1]
            script.append(f"grep -v {secret} {name} > .t || true; mv .t {name}")
        script.append(f"echo '{line}' >> {name}; git add -A")
        person = f"GIT_AUTHOR_NAME='{author}' GIT_AUTHOR_EMAIL=a@example.com GIT_AUTHOR_DATE='{when}' GIT_COMMITTER_DATE='{when}'"
        script.append(f"{person} git commit -qm '{subject}'")
        commits.append((subject, name))
    counts = Counter(line.split("GIT_AUTHOR_NAME='")[1].split("'")[0] for line in script if "GIT_AUTHOR_NAME" in line)
    ranking = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    told = [
        "/app/repo is a git repository.",
        "Write /app/authors.txt: a line `count name` for each author, most commits first, equal ones by name.",
    ]
    solve = [
        "cd repo",
        "git log --format=%an | LC_ALL=C sort | uniq -c | sort -k1,1nr -k2 | sed 's/^ *//' > ../authors.txt",
    ]
    checks: list[dict[str, Any]] = [
        {"kind": "text", "path": "authors.txt", "text": "".join(f"{number} {name}\n" for name, number in ranking)}
    ]
    if level > 1:
        told.append(
            f"A line with `{secret}` was once in a file and was removed later. Write the subject of the commit that brought it to /app/leak.txt."
        )
        solve.append(f"git log -S{secret} --reverse --format=%s | head -n1 > ../leak.txt")
        checks.append({"kind": "text", "path": "leak.txt", "text": commits[holds][0] + "\n"})
    tagged = rng.randrange(1, count - 1)
    tag = f"v{rng.randint(0, 3)}.{rng.randint(0, 9)}"
    told.append(f"Put the lightweight tag `{tag}` on the commit with the subject `{commits[tagged][0]}`.")
    solve.append(
        f"git tag {tag} $(git log --format='%H %s' | grep -F ' {commits[tagged][0]}' | grep '{commits[tagged][0]}$' | cut -d' ' -f1)"
    )
    checks.append(_git_check(["log", "-1", "--format=%s", tag], commits[tagged][0]))
    if level > 2:
        told.append(
            "On a new branch `undo`, made from main, revert the last commit of main, so that `undo` has the files of main's parent and one commit more than main."
        )
        solve.append(
            "git checkout -q -b undo; git -c user.name=x -c user.email=x@example.com revert --no-edit HEAD > /dev/null; git checkout -q main"
        )
        checks.append(_git_check(["diff", "--stat", "main~1", "undo"], ""))
        checks.append(_git_check(["rev-list", "--count", "main..undo"], "1"))
        checks.append(_git_check(["rev-list", "--count", "main"], str(count)))
    return Draft("\n".join(told), "\n".join(solve), checks, {}, "\n".join(script), ("git",))


def _git_check(argv: list[str], stdout: str) -> dict[str, Any]:
    return {"kind": "command", "argv": [_GIT, *_SAFE, "--no-pager", *argv], "stdout": f"{stdout}\n" if stdout else ""}


def patches(rng: random.Random, level: int) -> Draft:
    """Patches to apply in the order of a series file, one of which does not apply; above level 1 a patch to write."""
    base = {f"src/{word}.txt": [sentence(rng) for _ in range(12)] for word in rng.sample(WORDS, 2 + level)}
    now = {path: list(lines) for path, lines in base.items()}
    files: dict[str, str | bytes] = {path: "\n".join(lines) + "\n" for path, lines in base.items()}
    series, broken = [], f"{rng.randint(1, 2 + level):02d}"
    for number in range(1, 4 + level):
        path, name = rng.choice(sorted(now)), f"{number:02d}-{rng.choice(WORDS)}.patch"
        before, after = now[path], list(now[path])
        spot = rng.randrange(len(after))
        after[spot : spot + 1] = rng.choice([[], [sentence(rng)], [after[spot], sentence(rng)]])
        fails = name.startswith(broken)
        shown = [f"{sentence(rng)} {i}" for i in range(len(before))] if fails else before
        target = [*shown[:spot], sentence(rng), *shown[spot + 1 :]] if fails else after
        files[f"patches/{name}"] = _patch(path, shown, target)
        series.append(name)
        now[path] = before if fails else after
    files["patches/series"] = "\n".join(series) + "\n"
    told = [
        "Apply the patches in /app/patches to /app/src, in the order of /app/patches/series (`patch -p1` in /app). A patch that does not "
        "apply is left out as a whole: write its file name to /app/rejected.txt, and leave no .rej or .orig files in /app/src.",
    ]
    solve = [
        """while read -r name; do
  if patch -p1 --dry-run -s -f < patches/$name > /dev/null; then patch -p1 -s -f < patches/$name
  else echo $name; fi
done < patches/series > .rejected; mv .rejected rejected.txt; find src -name '*.orig' -delete"""
    ]
    rejected = [name for name in series if name.startswith(broken)]
    tree = {path.removeprefix("src/"): sha256("\n".join(lines) + "\n") for path, lines in now.items()}
    checks: list[dict[str, Any]] = [
        {"kind": "tree", "path": "src", "files": tree},
        {"kind": "text", "path": "rejected.txt", "text": "".join(f"{name}\n" for name in rejected)},
    ]
    if level > 1:
        old, new = [sentence(rng) for _ in range(15)], []
        new = [line for i, line in enumerate(old) if i != 3]
        new.insert(9, sentence(rng))
        files.update({"old.txt": "\n".join(old) + "\n", "new.txt": "\n".join(new) + "\n"})
        told.append(
            "Write /app/change.patch, a unified diff that turns a file with the content of /app/old.txt into /app/new.txt, so that `patch FILE change.patch` works."
        )
        solve.append("diff -u old.txt new.txt > change.patch || true")
        script = "cp old.txt .copy && patch -s .copy change.patch && cat .copy"
        checks.append({"kind": "command", "argv": ["/bin/bash", "-c", script], "stdout": "\n".join(new) + "\n"})
        checks.append({"kind": "command", "argv": ["/bin/grep", "-c", "^@@", "change.patch"], "exit_code": 0})
    return Draft("\n".join(told), "\n".join(solve), checks, files, "", ("patch",))


def _patch(path: str, before: list[str], after: list[str]) -> str:
    lines = difflib.unified_diff(before, after, f"a/{path}", f"b/{path}", lineterm="")
    return "\n".join(lines) + "\n"
