"""git: conflicts, lost work, a search through history, what is ignored."""

from __future__ import annotations

from typing import Any

from arcforge.envs.terminal.draft import Draft

_WHO = "git config user.name Ada; git config user.email ada@example.com"
_GIT = [
    "/usr/bin/git",
    "-c",
    "safe.directory=*",
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "core.fsmonitor=false",
    "--no-pager",
]


def _git(argv: list[str], stdout: str) -> dict[str, Any]:
    return {"kind": "command", "argv": [*_GIT, "-C", "/app/repo", *argv], "stdout": stdout}


CONFLICT = Draft(
    "In /app/repo a merge of the branch `prices` into `main` was begun and stopped at a conflict in menu.txt. Finish it: menu.txt "
    "keeps the dishes of both sides, those of main first, with the prices that the branch `prices` has where both tell one for a "
    "dish; no other file changes. Commit the merge, with both branches as its parents. Nothing may be left uncommitted.",
    """cd repo
cat > menu.txt <<'MENU'
soup 5
salad 7
bread 2
cake 4
tea 3
MENU
git add menu.txt && git commit -qm 'Merge prices'
""",
    [
        {"kind": "text", "path": "repo/menu.txt", "text": "soup 5\nsalad 7\nbread 2\ncake 4\ntea 3\n"},
        {"kind": "text", "path": "repo/notes.txt", "text": "open at nine\n"},
        _git(["status", "--porcelain"], ""),
        _git(["rev-list", "--count", "main"], "4\n"),
        _git(["rev-list", "--count", "main..prices"], "0\n"),
        _git(["rev-list", "--min-parents=2", "--count", "main"], "1\n"),
    ],
    setup=f"""git init -q -b main repo; cd repo; {_WHO}
printf 'soup 4\\nsalad 6\\n' > menu.txt; echo 'open at nine' > notes.txt; git add -A; git commit -qm one
git checkout -q -b prices; printf 'soup 5\\nsalad 7\\ntea 3\\n' > menu.txt; git commit -qam prices
git checkout -q main; printf 'soup 4\\nsalad 6\\nbread 2\\ncake 4\\n' > menu.txt; git commit -qam dishes
git merge prices > /dev/null || true""",
    packages=("git",),
)

LOST_BRANCH = Draft(
    "In /app/repo somebody deleted the branch `feature` without merging it. Its last commit, with the subject `Add the cache`, is still in "
    "the repository. Bring the branch back, under its name and with its two commits, and leave `main` as it is.",
    """cd repo
git branch feature $(git fsck --lost-found --no-reflogs 2>/dev/null | awk '/dangling commit/ {print $3}' | while read c; do
  git log -1 --format='%H %s' $c; done | awk '/Add the cache$/ {print $1}')
""",
    [
        _git(["log", "--format=%s", "main..feature"], "Add the cache\nAdd the index\n"),
        _git(["show", "feature:cache.txt"], "cache\n"),
        _git(["log", "--format=%s", "main"], "Start\n"),
    ],
    setup=f"""git init -q -b main repo; cd repo; {_WHO}
echo start > a.txt; git add -A; git commit -qm Start; git checkout -q -b other
echo x > x.txt; git add -A; git commit -qm 'Try something'; git checkout -q main; git checkout -q -b feature
echo index > index.txt; git add -A; git commit -qm 'Add the index'
echo cache > cache.txt; git add -A; git commit -qm 'Add the cache'
git checkout -q main; git branch -qD feature other; rm -rf .git/logs""",
    packages=("git",),
)

BISECT = Draft(
    "In /app/repo `bash total.sh 3 4` used to print 7 and prints something else today. Write the subject of the first commit with which it "
    "does not print 7 to /app/culprit.txt. Then repair total.sh on main, in the working tree, so that it prints the sum of its "
    "two arguments and, as today, the word `total` before it where a third argument `-v` is given.",
    """cd repo
for c in $(git rev-list --reverse main); do
  git show $c:total.sh > ../.t
  if [ "$(bash ../.t 3 4)" != 7 ]; then git log -1 --format=%s $c > ../culprit.txt; break; fi
done
rm ../.t
sed -i 's/\\$1 - -\\$2 + 1/$1 + $2/' total.sh
""",
    [
        {"kind": "text", "path": "culprit.txt", "text": "Change 11\n"},
        {"kind": "command", "argv": ["/bin/bash", "/app/repo/total.sh", "3", "4"], "stdout": "7\n"},
        {"kind": "command", "argv": ["/bin/bash", "/app/repo/total.sh", "40", "-2"], "stdout": "38\n"},
        {"kind": "command", "argv": ["/bin/bash", "/app/repo/total.sh", "5", "6", "-v"], "stdout": "total 11\n"},
    ],
    setup=f"""git init -q -b main repo; cd repo; {_WHO}
for n in $(seq 1 16); do
  sum='$1 + $2'; if [ $n -ge 11 ]; then sum='$1 - -$2 + 1'; fi
  word=''; if [ $n -ge 5 ]; then word='if [ "$3" = -v ]; then printf "total "; fi'; fi
  printf '# change %s\\n%s\\necho $(( %s ))\\n' $n "$word" "$sum" > total.sh
  git add -A; git commit -qm "Change $n"
done""",
    packages=("git",),
)

IGNORED = Draft(
    "Write /app/repo/.gitignore so that of the files that are there now git would add exactly these: .gitignore, all `.py` files outside of "
    "the folder `build`, README, and docs/keep.log. No other change to the repository; the patterns also have to hold for `.py`, `.log` and "
    "`.tmp` files that come later (of a later `.log` none is added).",
    "cd repo; printf '*.log\\n*.tmp\\n/build/\\n!/docs/keep.log\\n' > .gitignore",
    [
        {
            **_git(["ls-files", "--others", "--exclude-standard"],
                   ".gitignore\nREADME\na.py\ndocs/keep.log\nlib/b.py\nlib/late.py\n"),
            "unordered": True,
            "files": {"repo/lib/late.py": "x\n", "repo/late.log": "x\n", "repo/docs/late.tmp": "x\n", "repo/build/late.py": "x\n"},
        },
    ],
    setup="""git init -q -b main repo; cd repo; mkdir build docs lib
touch README a.py lib/b.py build/c.py build/d.o docs/keep.log docs/other.log run.log lib/x.tmp""",
    packages=("git",),
)  # fmt: skip

DRAFTS = {
    "merge-conflict": CONFLICT, "lost-branch": LOST_BRANCH, "first-bad-commit": BISECT, "gitignore": IGNORED,
}  # fmt: skip
