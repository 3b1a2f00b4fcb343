"""One notation turned into another: INI, JSON lines, TSV, Markdown, key-value blocks."""

from __future__ import annotations

import json
import random
from typing import Any

from arcforge.envs.terminal.draft import Draft, csv_text
from arcforge.envs.terminal.families.pools import CITIES, GOODS, SERVICES, WORDS, person
from arcforge.envs.terminal.families.tables import PYTHON

Part = tuple[str, str, dict[str, Any], dict[str, str]]
"""(what is asked, Python that does it, check, files)"""


def formats(rng: random.Random, level: int) -> Draft:
    parts = [part(rng, level) for part in rng.sample([_ini, _json_lines, _markdown, _blocks], level)]
    told = "\n\n".join(f"{i}. {part[0]}" for i, part in enumerate(parts, 1))
    files: dict[str, str | bytes] = {name: text for part in parts for name, text in part[3].items()}
    return Draft(told, PYTHON.format("\n".join(part[1] for part in parts)), [part[2] for part in parts], files)


def _ini(rng: random.Random, level: int) -> Part:
    sections = {
        section: {
            key: rng.choice([str(rng.randint(0, 999)), rng.choice(WORDS), "yes", "no"]) for key in rng.sample(WORDS, 3)
        }
        for section in rng.sample(SERVICES, 2 + level)
    }
    text = "".join(
        f"[{s}]\n" + "".join(f"{k} = {v}\n" for k, v in pairs.items()) + "; end\n\n" for s, pairs in sections.items()
    )
    value = {s: {k: _typed(v) for k, v in pairs.items()} for s, pairs in sections.items()}
    told = (
        "Turn /app/settings.ini into /app/settings.json: an object of the sections, each an object of its keys. Whole numbers become "
        "numbers, `yes` and `no` become true and false, everything else stays a string. Lines that begin with ; are comments."
    )
    solve = """import configparser, json
c = configparser.ConfigParser(interpolation=None); c.read('settings.ini')
typed = lambda v: int(v) if v.isdigit() else {'yes': True, 'no': False}.get(v, v)
json.dump({s: {k: typed(v) for k, v in c[s].items()} for s in c.sections()}, open('settings.json', 'w'))"""
    return told, solve, {"kind": "json", "path": "settings.json", "value": value}, {"settings.ini": text}


def _typed(value: str) -> Any:
    return int(value) if value.isdigit() else {"yes": True, "no": False}.get(value, value)


def _json_lines(rng: random.Random, level: int) -> Part:
    rows = [
        {"id": n, "name": person(rng), "city": rng.choice(CITIES), "points": rng.randint(0, 99)}
        for n in range(6 * level)
    ]
    for row in rows:
        if rng.random() < 0.3:
            del row["city"]
    rng.shuffle(rows)
    told = (
        "Turn /app/people.jsonl (a JSON object a line) into /app/people.csv with the header `id,name,city,points`, a row for each "
        "object in the order of id; where an object has no city the cell is `unknown`."
    )
    solve = """import json, csv
rows = sorted(map(json.loads, open('people.jsonl')), key=lambda r: r['id'])
out = csv.writer(open('people.csv', 'w', newline='')); out.writerow(['id', 'name', 'city', 'points'])
out.writerows([r['id'], r['name'], r.get('city', 'unknown'), r['points']] for r in rows)"""
    wanted = [
        [str(r["id"]), r["name"], r.get("city", "unknown"), str(r["points"])]
        for r in sorted(rows, key=lambda r: r["id"])
    ]
    check = {"kind": "csv", "path": "people.csv", "rows": [["id", "name", "city", "points"], *wanted]}
    return told, solve, check, {"people.jsonl": "".join(json.dumps(row) + "\n" for row in rows)}


def _markdown(rng: random.Random, level: int) -> Part:
    rows = [[rng.choice(GOODS), rng.randint(1, 500), rng.choice(CITIES)] for _ in range(4 * level)]
    shown = [["product", "stock", "city"], ["---", "---:", "---"], *rows]
    told = (
        "Turn /app/stock.tsv, whose first line is its header, into a Markdown table /app/stock.md: every line `| a | b | c |` with "
        "one space around each cell, the second line `| --- | ---: | --- |`, the rows in the order of the file."
    )
    solve = """rows = [l.rstrip('\\n').split('\\t') for l in open('stock.tsv')]
rows.insert(1, ['---', '---:', '---'])
open('stock.md', 'w').writelines('| ' + ' | '.join(r) + ' |\\n' for r in rows)"""
    text = "".join("| " + " | ".join(map(str, row)) + " |\n" for row in shown)
    check = {"kind": "text", "path": "stock.md", "text": text}
    return told, solve, check, {"stock.tsv": csv_text([["product", "stock", "city"], *rows], "\t")}


def _blocks(rng: random.Random, level: int) -> Part:
    records = [
        {
            "Name": f"{rng.choice(WORDS)}{n}",
            "Version": f"{rng.randint(0, 9)}.{rng.randint(0, 20)}",
            "Size": str(rng.randint(1, 9999)),
        }
        for n in range(5 * level)
    ]
    big = rng.randint(1000, 5000)
    kept = sorted((r for r in records if int(r["Size"]) > big), key=lambda r: r["Name"])
    told = (
        "/app/packages.txt has blocks of lines `Key: value`, separated by an empty line. Write /app/packages.json: a list of "
        f"[Name, Version, Size] of those with a Size of more than {big}, Size as a number, sorted by Name."
    )
    solve = f"""import json
blocks = [dict(l.split(': ', 1) for l in b.split('\\n') if l) for b in open('packages.txt').read().strip().split('\\n\\n')]
kept = sorted((b for b in blocks if int(b['Size']) > {big}), key=lambda b: b['Name'])
json.dump([[b['Name'], b['Version'], int(b['Size'])] for b in kept], open('packages.json', 'w'))"""
    value = [[r["Name"], r["Version"], int(r["Size"])] for r in kept]
    lines = ["\n".join(f"{key}: {text}" for key, text in record.items()) for record in records]
    return (
        told,
        solve,
        {"kind": "json", "path": "packages.json", "value": value},
        {"packages.txt": "\n\n".join(lines) + "\n"},
    )
