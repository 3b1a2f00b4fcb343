"""Logs and checksums."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from datetime import timedelta
from typing import Any

from arcforge.envs.terminal.draft import Draft, sha256
from arcforge.envs.terminal.families.pools import SERVICES, WORDS, address, folder_name, moment, sentence
from arcforge.envs.terminal.families.tables import PYTHON


def logs(rng: random.Random, level: int) -> Draft:
    """An access log: clients by requests, errors by hour, a quantile of the time by path."""
    now, addresses = moment(rng), [address(rng) for _ in range(8)]
    paths = [f"/{rng.choice(SERVICES)}/{rng.choice(WORDS)}" for _ in range(5)]
    entries = []
    for _ in range(80 * level):
        now += timedelta(seconds=rng.randint(1, 400))
        status = rng.choices([200, 301, 404, 500, 503], [70, 5, 12, 8, 5])[0]
        entries.append((now, rng.choice(addresses), rng.choice(paths), status, rng.randint(1, 2000)))
    lines = [f'{a} - - [{t:%d/%b/%Y:%H:%M:%S +0000}] "GET {p} HTTP/1.1" {s} {ms}' for t, a, p, s, ms in entries]
    parts = [part(rng, entries) for part in rng.sample([_clients, _errors, _slow], level)]
    told = '/app/access.log has lines `address - - [time] "METHOD path protocol" status milliseconds`.\n\n' + "\n".join(
        f"{i}. {part[0]}" for i, part in enumerate(parts, 1)
    )
    head = """import re, collections
entries = [re.match(r'(\\S+) - - \\[(.*?)\\] "\\S+ (\\S+) \\S+" (\\d+) (\\d+)', line).groups() for line in open('access.log')]
months = 'Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec'.split()
"""
    checks: list[dict[str, Any]] = [{"kind": "text", "path": path, "text": wanted} for _, _, path, wanted in parts]
    files = {"access.log": "\n".join(lines) + "\n"}
    return Draft(told, PYTHON.format(head + "".join(part[1] for part in parts)), checks, files)


def _clients(rng: random.Random, entries: list[tuple]) -> tuple[str, str, str, str]:
    count = rng.randint(2, 5)
    counts = sorted(Counter(entry[1] for entry in entries).items(), key=lambda pair: (-pair[1], pair[0]))[:count]
    told = f"Write the {count} addresses with the most requests to /app/clients.txt as `address count`, most first; equal ones in the order of the addresses as text."
    solve = f"""c = collections.Counter(e[0] for e in entries)
open('clients.txt', 'w').writelines(f'{{a}} {{n}}\\n' for a, n in sorted(c.items(), key=lambda p: (-p[1], p[0]))[:{count}])
"""
    return told, solve, "clients.txt", "".join(f"{name} {number}\n" for name, number in counts)


def _errors(rng: random.Random, entries: list[tuple]) -> tuple[str, str, str, str]:
    least = rng.choice([400, 500])
    hours = Counter(f"{entry[0]:%Y-%m-%d %H}" for entry in entries if entry[3] >= least)
    told = f"Write /app/errors.txt: for each hour with a response of status {least} or more a line `YYYY-MM-DD HH count`, in order of time."
    solve = f"""h = collections.Counter()
for _, t, _, s, _ in entries:
    if int(s) >= {least}:
        h['%s-%02d-%s %s' % (t[7:11], months.index(t[3:6]) + 1, t[:2], t[12:14])] += 1
open('errors.txt', 'w').writelines(f'{{k}} {{n}}\\n' for k, n in sorted(h.items()))
"""
    return told, solve, "errors.txt", "".join(f"{hour} {number}\n" for hour, number in sorted(hours.items()))


def _slow(rng: random.Random, entries: list[tuple]) -> tuple[str, str, str, str]:
    share = rng.choice([50, 75, 90, 95])
    times: dict[str, list[int]] = defaultdict(list)
    for entry in entries:
        times[entry[2]].append(entry[4])
    rows = [(path, sorted(ms)[-(-len(ms) * share // 100) - 1]) for path, ms in sorted(times.items())]
    told = (
        f"Write /app/slow.txt: for each path, sorted, a line `path milliseconds` with the {share}th percentile of its times by "
        f"the nearest-rank method: of n sorted times the one at position ceil({share}/100 * n), counted from 1."
    )
    solve = f"""d = collections.defaultdict(list)
for _, _, p, _, ms in entries: d[p].append(int(ms))
open('slow.txt', 'w').writelines(f'{{p}} {{sorted(v)[-(-len(v) * {share} // 100) - 1]}}\\n' for p, v in sorted(d.items()))
"""
    return told, solve, "slow.txt", "".join(f"{path} {ms}\n" for path, ms in rows)


def checksums(rng: random.Random, level: int) -> Draft:
    """A manifest of SHA-256 sums against a folder in which files changed, vanished, came, and are there twice."""
    files: dict[str, str | bytes] = {}
    while len(files) < 8 * level:
        name = f"{rng.choice(WORDS)}{rng.randint(1, 99)}.dat"
        files[f"data/{folder_name(rng)}/{name}" if level > 1 else f"data/{name}"] = sentence(rng, 5, 30) + "\n"
    names = sorted(files)
    manifest = "".join(f"{sha256(files[name])}  {name}\n" for name in names)
    changed = sorted(rng.sample(names, 2 * level))
    missing = sorted(rng.sample([name for name in names if name not in changed], level))
    for name in changed:
        files[name] = str(files[name]).replace(" ", "  ", 1)
    for name in missing:
        del files[name]
    extra = [f"data/extra{n}.dat" for n in range(level)]
    for name in extra:
        files[name] = files[rng.choice([n for n in names if n in files and n not in changed])]
    told = (
        "/app/SHA256SUMS tells the SHA-256 of every file that should be in /app/data (paths are relative to /app). Write "
        "/app/report.txt with a line `changed path` for each file whose content differs, `missing path` for each that is not "
        "there, and `extra path` for each file in /app/data that the manifest does not name. Sort the lines by byte value."
    )
    report = sorted(
        [f"changed {n}" for n in changed] + [f"missing {n}" for n in missing] + [f"extra {n}" for n in extra]
    )
    checks: list[dict[str, Any]] = [{"kind": "text", "path": "report.txt", "text": "\n".join(report) + "\n"}]
    solve = """{ while read -r sum path; do
  if [ ! -e "$path" ]; then echo "missing $path"
  elif [ "$(sha256sum < "$path" | cut -d' ' -f1)" != "$sum" ]; then echo "changed $path"; fi
done < SHA256SUMS
find data -type f | while read -r path; do grep -qF "  $path" SHA256SUMS || echo "extra $path"; done; } | LC_ALL=C sort > report.txt
"""
    if level > 1:
        told += " Then write /app/FRESH, a manifest in the same form of the files that are in /app/data now, sorted by path."
        fresh = "".join(f"{sha256(files[name])}  {name}\n" for name in sorted(files))
        checks.append({"kind": "text", "path": "FRESH", "text": fresh})
        solve += "find data -type f | LC_ALL=C sort | xargs -d '\\n' sha256sum > FRESH\n"
    return Draft(told, solve, checks, {**files, "SHA256SUMS": manifest})
