"""Answers that have to be worked out step by step, from a rule and an input."""

from __future__ import annotations

import random

from arcforge.envs.terminal.draft import Draft, sha256

_PYTHON = "python3 - <<'PYTHON'\n{}\nPYTHON"

ORDER = Draft(
    "/app/jobs.txt has lines `job: jobs that have to come before it`. Write /app/order.txt: all jobs, one a line, in an order that keeps "
    "to this; wherever several could be next it is the alphabetically first of them. Jobs that stand only on the right side of "
    "a colon come before nothing of their own. Jobs of a circle, and those that wait for one, cannot be placed: leave them out and write them, "
    "sorted, to /app/stuck.txt.",
    _PYTHON.format("""import heapq
needs = {}
for line in open('jobs.txt'):
    job, _, rest = line.partition(':')
    needs.setdefault(job.strip(), set()).update(rest.split())
for rest in list(needs.values()):
    for job in rest: needs.setdefault(job, set())
out, done = [], set()
while ready := sorted(j for j, n in needs.items() if j not in done and n <= done):
    out.append(ready[0]); done.add(ready[0])
open('order.txt', 'w').writelines(j + '\\n' for j in out)
open('stuck.txt', 'w').writelines(j + '\\n' for j in sorted(set(needs) - done))"""),
    [
        {"kind": "text", "path": "order.txt", "text": "beta\nclean\nfetch\nalpha\ncompile\nlink\nzeta\npack\n"},
        {"kind": "text", "path": "stuck.txt", "text": "after\nleft\nright\n"},
    ],
    {
        "jobs.txt": "link: compile\ncompile: fetch alpha\npack: link zeta\nzeta: link\nalpha: fetch\nclean:\nleft: right\nright: left\nafter: left pack\nbeta:\n"
    },
)

_ACCESSES = [random.Random(7).choice("ABCDEFGHIJ") for _ in range(200)]


def _hits(size: int) -> int:
    cache: list[str] = []
    hits = 0
    for page in _ACCESSES:
        if page in cache:
            hits += 1
            cache.remove(page)
        cache.append(page)
        del cache[:-size]
    return hits


CACHE = Draft(
    "/app/accesses.txt has the pages that a program reads, one a line, in order. Think of a cache that holds N pages, is empty at first and, "
    "when it is full, drops the page that was not used for the longest time. Write /app/hits.txt: `N hits` for N from 1 to 8, and to "
    "/app/enough.txt the smallest N with which at least half of the accesses are hits.",
    _PYTHON.format("""pages = open('accesses.txt').read().split()
def hits(n):
    cache, count = {}, 0
    for p in pages:
        if p in cache: count += 1; del cache[p]
        cache[p] = 1
        if len(cache) > n: del cache[next(iter(cache))]
    return count
open('hits.txt', 'w').writelines(f'{n} {hits(n)}\\n' for n in range(1, 9))
print(next(n for n in range(1, 99) if 2 * hits(n) >= len(pages)), file=open('enough.txt', 'w'))"""),
    [
        {"kind": "text", "path": "hits.txt", "text": "".join(f"{n} {_hits(n)}\n" for n in range(1, 9))},
        {"kind": "text", "path": "enough.txt", "text": f"{next(n for n in range(1, 11) if 2 * _hits(n) >= 200)}\n"},
    ],
    {"accesses.txt": "\n".join(_ACCESSES) + "\n"},
)

LIFE = Draft(
    "/app/grid.txt is a board of Conway's Game of Life, `#` alive and `.` dead; everything outside of it is dead and stays so. Write the "
    "board after 20 generations to /app/after.txt in the same form, and the number of living cells of each generation from 0 to 20 to "
    "/app/population.txt, one a line.",
    _PYTHON.format("""g = [list(l.strip()) for l in open('grid.txt')]
h, w = len(g), len(g[0])
counts = [sum(r.count('#') for r in g)]
for _ in range(20):
    def near(y, x): return sum(g[b][a] == '#' for b in range(max(0, y-1), min(h, y+2)) for a in range(max(0, x-1), min(w, x+2)) if (a, b) != (x, y))
    g = [['#' if near(y, x) == 3 or (near(y, x) == 2 and g[y][x] == '#') else '.' for x in range(w)] for y in range(h)]
    counts.append(sum(r.count('#') for r in g))
open('after.txt', 'w').writelines(''.join(r) + '\\n' for r in g)
open('population.txt', 'w').writelines(f'{c}\\n' for c in counts)"""),
    [
        {
            "kind": "text",
            "path": "after.txt",
            "text": "............\n" * 5 + "......#.....\n.......#....\n.....###....\n" + "............\n" * 4,
        },
        {"kind": "text", "path": "population.txt", "text": "5\n" * 21},
    ],
    {"grid.txt": ".#..........\n..#.........\n###.........\n" + "............\n" * 9},
)

_TREE = {
    "a/one.txt": "same\n",
    "a/two.txt": "other\n",
    "b/copy of one.txt": "same\n",
    "b/deep/three.txt": "same\n",
    "c/two.txt": "other!\n",
}
DUPLICATES = Draft(
    "Below /app/store some files have the same content. Replace each copy by a hard link to the first of them (by path, sorted by byte value), "
    "so that every path still shows the same content, and write to /app/saved.txt how many bytes that saves: the sizes of the replaced files "
    "together. Files that are alone stay as they are.",
    """find store -type f | LC_ALL=C sort > .list
saved=0
declare -A first
while IFS= read -r f; do
  sum=$(sha256sum < "$f")
  if [ -n "${first[$sum]:-}" ]; then saved=$((saved + $(stat -c %s "$f"))); ln -f "${first[$sum]}" "$f"; else first[$sum]=$f; fi
done < .list
echo $saved > saved.txt; rm .list
""",
    [
        {"kind": "text", "path": "saved.txt", "text": "10\n"},
        {"kind": "tree", "path": "store", "files": {path: sha256(text) for path, text in _TREE.items()}},
        *(
            {
                "kind": "command",
                "argv": ["/usr/bin/stat", "-c", "%h", f"store/{path}"],
                "stdout": f"{3 if _TREE[path] == 'same' + chr(10) else 1}\n",
            }
            for path in _TREE
        ),
    ],
    {f"store/{path}": text for path, text in _TREE.items()},
)

REDIRECTS = Draft(
    "/app/redirects.txt has lines `from to`: pages that moved, some of them more than once. Write /app/final.txt: `from end` for each line, "
    "in the order of the file, where end is where one arrives after following all moves; `from loop` for those from which one never arrives. "
    "Where a page is listed more than once its last line counts, and it is written once, at its first place. A `/` at the end of a path means nothing, "
    "besides for the path `/` itself, and is not written.",
    _PYTHON.format("""moves = {}
plain = lambda p: p if p == '/' else p.rstrip('/')
for line in open('redirects.txt'):
    a, b = map(plain, line.split()); moves[a] = b
with open('final.txt', 'w') as out:
    for start in moves:
        seen, page = {start}, moves[start]
        while page in moves and page not in seen: seen.add(page); page = moves[page]
        print(start, 'loop' if page in seen else page, file=out)"""),
    [
        {
            "kind": "text",
            "path": "final.txt",
            "text": "/a /d\n/b /d\n/c /d\n/x loop\n/y loop\n/z loop\n/home /\n/self loop\n/old /new\n",
        }
    ],
    {"redirects.txt": "/a /b/\n/b /c\n/c/ /d\n/x /y\n/y /x/\n/z /x\n/home /\n/self /self/\n/old /older\n/old/ /new\n"},
)

DISK = Draft(
    "/app/files.txt has lines `size path` of files on a disk, sizes in bytes, paths absolute, maybe with spaces. Write /app/folders.txt: `size path` "
    "for every folder, `/` too, with the sizes of all files in it and below it, largest first, equal ones by path (byte value). Then write "
    "to /app/smallest.txt the path of the smallest folder that is larger than 1000 bytes.",
    _PYTHON.format("""sizes = {}
for line in open('files.txt'):
    size, path = line.rstrip('\\n').split(' ', 1)
    parts = path.split('/')[1:-1]
    for n in range(len(parts) + 1):
        folder = '/' + '/'.join(parts[:n])
        sizes[folder] = sizes.get(folder, 0) + int(size)
open('folders.txt', 'w').writelines(f'{s} {p}\\n' for p, s in sorted(sizes.items(), key=lambda i: (-i[1], i[0])))
print(min((s, p) for p, s in sizes.items() if s > 1000)[1], file=open('smallest.txt', 'w'))"""),
    [
        {
            "kind": "text",
            "path": "folders.txt",
            "text": "5710 /\n3800 /srv\n2600 /srv/my data\n1900 /var\n1500 /srv/my data/raw\n1200 /srv/web\n1000 /var/log\n900 /var/tmp\n",
        },
        {"kind": "text", "path": "smallest.txt", "text": "/srv/web\n"},
    ],
    {
        "files.txt": "1500 /srv/my data/raw/a b.bin\n1100 /srv/my data/index\n1200 /srv/web/page\n1000 /var/log/x\n900 /var/tmp/y\n10 /top\n"
    },
)

DRAFTS = {
    "job-order": ORDER, "cache": CACHE, "game-of-life": LIFE, "duplicates": DUPLICATES, "redirects": REDIRECTS, "disk": DISK,
}  # fmt: skip
