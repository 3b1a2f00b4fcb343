"""Shell scripts, the mistakes that can be planted in each, and cases with what the right script prints."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from arcforge.envs.terminal.families.pools import GOODS, WORDS, sentence


@dataclass(frozen=True)
class Case:
    output: str
    arguments: tuple[str, ...] = ()
    stdin: str = ""
    files: dict[str, str] = field(default_factory=dict)
    exit_code: int = 0


@dataclass(frozen=True)
class Script:
    """mistakes: (right, wrong) pieces of `code`, each of which alone changes what some case prints. case: the number of the
    case chooses its kind, so that the first few have every kind."""

    told: str
    code: str
    mistakes: list[tuple[str, str]]
    case: Callable[[random.Random, int], Case]


def _column(rng: random.Random, number: int) -> Case:
    if number == 1:
        return Case("0\n", ("hidden.txt", "2"), files={"hidden.txt": "# nothing\n"})
    if number == 2:
        return Case("", ("no-such-file.txt", "1"), exit_code=2)
    column = 3 if number == 0 else rng.randint(1, 4)
    rows = [[rng.randint(1, 999) for _ in range(4)] for _ in range(rng.randint(3, 12))]
    lines = ["# 7 8 9 10", *(" ".join(map(str, row)) for row in rows)]
    return Case(
        f"{sum(row[column - 1] for row in rows)}\n",
        ("hidden.txt", str(column)),
        files={"hidden.txt": "\n".join(lines) + "\n"},
    )


def _endings(rng: random.Random, number: int) -> Case:
    folder = f"hidden{number}"
    names = [f"{rng.choice(WORDS)} {n}.{rng.choice(['txt', 'log', 'csv'])}" for n in range(4 + number)]
    names += [f"deep/{rng.choice(WORDS)}.{rng.choice(['txt', 'md'])}", f"plain{number}"]
    endings = Counter(name.rpartition(".")[2] for name in names if "." in name)
    rows = sorted(endings.items(), key=lambda pair: (-pair[1], pair[0]))
    return Case("".join(f"{n} {e}\n" for e, n in rows), (folder,), files={f"{folder}/{name}": "x\n" for name in names})


def _slugs(rng: random.Random, number: int) -> Case:
    titles, slugs = [], []
    for _ in range(3 + number):
        words = sentence(rng, 2, 5).split()
        titles.append(
            rng.choice(["", "  "])
            + rng.choice([" ", " - ", "  ", "/", "! "]).join(w.title() for w in words)
            + rng.choice(["", "!", " ?"])
        )
        slugs.append("-".join(words))
    return Case("".join(f"{slug}\n" for slug in slugs), stdin="".join(f"{title}\n" for title in titles))


def _stats(rng: random.Random, number: int) -> Case:
    if number == 1:
        return Case("", stdin="", exit_code=1)
    low = {0: -9, 2: -900}.get(number, 1)
    values = [rng.randint(low, 900) for _ in range(rng.randint(2, 9))]
    if number == 2:
        values = [-abs(value) - 1 for value in values]
    shown = f"{min(values)} {max(values)} {sum(values)}\n"
    return Case(shown, stdin="".join(f"{value}\n" for value in values).removesuffix("\n" if number == 3 else ""))


def _stock(rng: random.Random, number: int) -> Case:
    stock: Counter[str] = Counter()
    lines, goods = [], rng.sample(GOODS, 4)
    for good in goods:
        lines.append(f"in,{good},{rng.randint(50, 90)}")
    lines += [f"{rng.choice(['in', 'out'])},{rng.choice(goods)},{rng.randint(1, 9)}" for _ in range(6 + number)]
    lines.append(f"out,{goods[0]},0")
    gone = goods[1]
    for line in lines:
        what, good, count = line.split(",")
        stock[good] += int(count) if what == "in" else -int(count)
    lines.append(f"out,{gone},{stock[gone]}")
    stock[gone] = 0
    rows = sorted((good, count) for good, count in stock.items() if count)
    return Case(
        "".join(f"{good}={count}\n" for good, count in rows),
        ("moves.csv",),
        files={"moves.csv": "\n".join(lines) + "\n"},
    )


SCRIPTS: dict[str, Script] = {
    "column": Script(
        "`column.sh FILE N` prints the sum of column N (from 1; columns are separated by spaces) of the lines of FILE, leaving out lines "
        "that begin with #. It prints 0 where no line is left, and ends with exit code 2, printing nothing on standard output, when "
        "there is no such file.",
        """#!/bin/bash
file=$1
column=$2
if [ ! -f "$file" ]; then
  echo "no such file: $file" >&2
  exit 2
fi
grep -v '^#' "$file" | awk -v c="$column" '{ sum += $c } END { print sum + 0 }'
""",
        [("exit 2", "exit 0"), ("grep -v", "grep -e ''  -e"), ("$c }", "$1 }"), ("print sum + 0", "print sum"), (">&2", "")],
        _column,
    ),
    "endings": Script(
        "`endings.sh FOLDER` prints, for the endings of the names of all files in FOLDER and its subfolders (what stands behind the last "
        "dot), lines `count ending`, most first and equal ones in alphabetical order. Files without a dot are left out; names may "
        "have spaces.",
        """#!/bin/bash
export LC_ALL=C
find "$1" -type f -name '*.*' | while read -r path; do
  name=$(basename "$path")
  echo "${name##*.}"
done | sort | uniq -c | sort -k1,1nr -k2,2 | awk '{ print $1, $2 }'
""",
        [('basename "$path"', "basename $path"), ("-name '*.*' ", ""), ("find \"$1\" -type f", 'find "$1" -maxdepth 1 -type f'),
         ("| sort | uniq", "| uniq"), ("-k1,1nr", "-k1,1n"), ("print $1, $2", "print $2, $1")],
        _endings,
    ),
    "slug": Script(
        "`slug.sh` reads titles from standard input, one a line, and prints a slug for each: in lower case, every run of characters other "
        "than a-z and 0-9 turned into one hyphen, with no hyphen at the beginning or the end.",
        """#!/bin/bash
export LC_ALL=C
while IFS= read -r title; do
  echo "$title" | tr A-Z a-z | sed -e 's/[^a-z0-9][^a-z0-9]*/-/g' -e 's/^-//' -e 's/-$//'
done
""",
        [("tr A-Z a-z", "tr a-z A-Z"), ("][^a-z0-9]*/-/g", "]/-/g"), (" -e 's/-$//'", ""), (" -e 's/^-//'", ""), ("*/-/g", "*/-/")],
        _slugs,
    ),
    "stats": Script(
        "`stats.sh` reads whole numbers from standard input, one a line (the last line may lack its newline), and prints `smallest largest "
        "sum` in one line. Where there is no number it prints nothing and ends with exit code 1.",
        """#!/bin/bash
low=""
high=""
sum=0
while read -r value || [ -n "$value" ]; do
  if [ -z "$low" ] || [ "$value" -lt "$low" ]; then low=$value; fi
  if [ -z "$high" ] || [ "$value" -gt "$high" ]; then high=$value; fi
  sum=$((sum + value))
done
if [ -z "$low" ]; then exit 1; fi
echo "$low $high $sum"
""",
        [(' || [ -n "$value" ]; do', "; do"), ('high=""', "high=0"), ("-lt", "-gt"), ("exit 1", "exit 0"), ("sum + value", "sum + 1")],
        _stats,
    ),
    "stock": Script(
        "`stock.sh FILE` reads lines `in,product,count` and `out,product,count` and prints `product=count` for each product of which "
        "something is left, in alphabetical order.",
        """#!/bin/bash
declare -A stock
while IFS=, read -r what product count; do
  if [ "$what" = in ]; then
    stock[$product]=$((${stock[$product]:-0} + count))
  else
    stock[$product]=$((${stock[$product]:-0} - count))
  fi
done < "$1"
for product in "${!stock[@]}"; do
  if [ "${stock[$product]}" -ne 0 ]; then
    echo "$product=${stock[$product]}"
  fi
done | LC_ALL=C sort
""",
        [("declare -A stock", "stock=()"), ("IFS=, read", "IFS=';' read"), (":-0} - count", ":-0} + count"), ("-ne 0", "-ge 0"),
         (" | LC_ALL=C sort", " | LC_ALL=C sort -r")],
        _stock,
    ),
}  # fmt: skip
