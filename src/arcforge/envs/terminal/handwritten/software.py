"""Programs to write or to repair, run on inputs that are not shown."""

from __future__ import annotations

from typing import Any

from arcforge.envs.terminal.draft import Draft

_PYTHON = "/usr/bin/python3"


def _runs(argv: list[str], *cases: tuple[list[str], str, str, int]) -> list[dict[str, Any]]:
    """Cases: arguments, standard input, standard output, exit code."""
    return [
        {"kind": "command", "argv": [*argv, *arguments], "stdin": stdin, "stdout": stdout, "exit_code": code}
        for arguments, stdin, stdout, code in cases
    ]


ROMAN = Draft(
    "Write /app/roman.py: `python3 roman.py N` prints the Roman numeral of a whole number N from 1 to 3999, `python3 roman.py NUMERAL` the number "
    "of a numeral in its usual form (IV, not IIII). Anything else: nothing on standard output and exit code 2.",
    """cat > roman.py <<'CODE'
import sys
V = [(1000, 'M'), (900, 'CM'), (500, 'D'), (400, 'CD'), (100, 'C'), (90, 'XC'), (50, 'L'), (40, 'XL'), (10, 'X'), (9, 'IX'), (5, 'V'), (4, 'IV'), (1, 'I')]
def roman(n):
    out = ''
    for value, sign in V:
        out += sign * (n // value); n %= value
    return out
all_ = {roman(n): n for n in range(1, 4000)}
if len(sys.argv) != 2: sys.exit(2)
text = sys.argv[1]
if text in all_: print(all_[text])
elif text.isascii() and text.isdigit() and 1 <= int(text) <= 3999: print(roman(int(text)))
else: sys.exit(2)
CODE
""",
    _runs(
        [_PYTHON, "roman.py"],
        (["1994"], "", "MCMXCIV\n", 0), (["MMXXIV"], "", "2024\n", 0), (["3999"], "", "MMMCMXCIX\n", 0), (["4"], "", "IV\n", 0),
        (["IIII"], "", "", 2), (["0"], "", "", 2), (["4000"], "", "", 2), (["iv"], "", "", 2), ([""], "", "", 2), (["XLII"], "", "42\n", 0),
    ),
)  # fmt: skip

WRAP = Draft(
    "Write /app/wrap.sh: `bash wrap.sh N` reads text from standard input and prints it with lines of at most N characters, broken only "
    "between words (each line holds as many words as fit; a word that is longer than N stands alone in its line). Paragraphs, separated by one "
    "or more empty lines, are wrapped by themselves and separated by exactly one empty line in the output. The text is ASCII.",
    """cat > wrap.sh <<'CODE'
exec python3 -c '
import sys, re
n = int(sys.argv[1])
out = []
for paragraph in re.split(r"\\n\\s*\\n", sys.stdin.read().strip()):
    lines = []
    for word in paragraph.split():
        if lines and len(lines[-1]) + 1 + len(word) <= n: lines[-1] += " " + word
        else: lines.append(word)
    out.append("\\n".join(lines))
print("\\n\\n".join(out))
' "$1"
CODE
""",
    _runs(
        ["/bin/bash", "wrap.sh"],
        (
            ["10"],
            "the quick brown fox\njumps over\n\n\n\nthe lazy dog\n",
            "the quick\nbrown fox\njumps over\n\nthe lazy\ndog\n",
            0,
        ),
        (["5"], "a extraordinarily b c d\n", "a\nextraordinarily\nb c d\n", 0),
        (["80"], "one\ntwo\nthree\n", "one two three\n", 0),
    ),
)

_C = r"""#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Prints the lines of a file, sorted by length, shorter ones first; equal ones keep their order. */
struct line { char *text; int order; };

static int compare(const void *a, const void *b) {
    const struct line *x = a, *y = b;
    return strlen(x->text) - strlen(y->text);
}

int main(int argc, char **argv) {
    if (argc != 2) return 2
    FILE *file = fopen(argv[1], "r");
    if (!file) return 1;
    struct line lines[8];
    char buffer[16];
    int count = 0;
    while (fgets(buffer, sizeof buffer, file)) {
        lines[count].text = buffer;
        lines[count].order = count;
        count++;
    }
    qsort(lines, count, sizeof *lines, compare);
    for (int i = 0; i < count; i++) fputs(lines[i].text, stdout);
    return 0;
}
"""
_C_FIXED = r"""#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct line { char *text; size_t length; int order; };

static int compare(const void *a, const void *b) {
    const struct line *x = a, *y = b;
    if (x->length != y->length) return x->length < y->length ? -1 : 1;
    return x->order - y->order;
}

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    FILE *file = fopen(argv[1], "r");
    if (!file) return 1;
    struct line *lines = NULL;
    size_t room = 0;
    int count = 0;
    char *buffer = NULL;
    ssize_t length;
    while ((length = getline(&buffer, &room, file)) >= 0) {
        if (length && buffer[length - 1] == '\n') buffer[--length] = 0;
        lines = realloc(lines, (count + 1) * sizeof *lines);
        lines[count] = (struct line){strdup(buffer), length, count};
        count++;
    }
    qsort(lines, count, sizeof *lines, compare);
    for (int i = 0; i < count; i++) puts(lines[i].text);
    return 0;
}
"""
C_PROGRAM = Draft(
    "/app/bylength.c should print the lines of the file that is its argument sorted by length, shorter ones first, lines of one length in the "
    "order of the file, each ended by a newline also where the file's last line is not. It does not compile, and has other mistakes. "
    "Lines may be of any length, and there may be any number of them. Exit codes: 2 without exactly one argument, 1 when the file "
    "cannot be read. Repair it, and build it with gcc as /app/bylength.",
    f"cat > bylength.c <<'CODE'\n{_C_FIXED}CODE\ngcc -O1 -o bylength bylength.c",
    [
        {"kind": "command", "argv": ["/usr/bin/gcc", "-O1", "-o", "/tmp/bylength", "/app/bylength.c"], "exit_code": 0},
        *(
            {"kind": "command", "argv": [program, "in.txt"], "files": {"in.txt": given}, "stdout": wanted}
            for program in ("/tmp/bylength", "/app/bylength")
            for given, wanted in (
                ("ccc\na\nbb\naa\n\nb", "\na\nb\nbb\naa\nccc\n"),
                ("".join("x" * n + "\n" for n in range(60, 0, -1)), "".join("x" * n + "\n" for n in range(1, 61))),
            )
        ),
        {"kind": "command", "argv": ["/tmp/bylength"], "exit_code": 2},
        {"kind": "command", "argv": ["/tmp/bylength", "nowhere"], "exit_code": 1},
    ],
    {"bylength.c": _C},
    packages=("gcc", "libc6-dev"),
)

BACKUP = Draft(
    "Write /app/backup.sh: `bash backup.sh FILE KEEP` copies FILE to FILE.1 after it moved an existing FILE.1 to FILE.2, FILE.2 to FILE.3 "
    "and so on; of the copies only FILE.1 to FILE.KEEP stay, older ones are deleted. FILE itself stays. File names may have spaces. "
    "Where FILE does not exist nothing is changed and the exit code is 1.",
    """cat > backup.sh <<'CODE'
file=$1 keep=$2
[ -f "$file" ] || exit 1
for old in "$file".*; do
  n=${old##*.}
  case $n in *[!0-9]*|'') continue;; esac
  if [ "$n" -ge "$keep" ]; then rm -f "$old"; fi
done
for ((n = keep - 1; n >= 1; n--)); do
  if [ -e "$file.$n" ]; then mv "$file.$n" "$file.$((n + 1))"; fi
done
if [ "$keep" -ge 1 ]; then cp "$file" "$file.1"; fi
CODE
""",
    [
        {"kind": "command", "argv": ["/bin/bash", "/app/backup.sh", "x/my file", "2"], "files": {"x/my file": "one\n"}},
        {"kind": "command", "argv": ["/bin/bash", "/app/backup.sh", "x/my file", "2"], "files": {"x/my file": "two\n"}},
        {
            "kind": "command",
            "argv": ["/bin/bash", "/app/backup.sh", "x/my file", "2"],
            "files": {"x/my file": "three\n"},
        },
        {"kind": "text", "path": "x/my file.1", "text": "three\n"},
        {"kind": "text", "path": "x/my file.2", "text": "two\n"},
        {"kind": "text", "path": "x/my file", "text": "three\n"},
        {"kind": "absent", "path": "x/my file.3"},
        {
            "kind": "command",
            "argv": ["/bin/bash", "/app/backup.sh", "x/my file", "4"],
            "files": {"x/my file": "four\n"},
        },
        {"kind": "text", "path": "x/my file.3", "text": "two\n"},
        {"kind": "command", "argv": ["/bin/bash", "/app/backup.sh", "x/none", "2"], "exit_code": 1},
        {"kind": "absent", "path": "x/none.1"},
    ],
)

VALIDATOR = Draft(
    "Write /app/validate.py: `python3 validate.py FILE` reads a JSON list of records and prints a line `INDEX PROBLEM` for each that is not "
    "valid, by index from 0, with the first problem in this order: `not an object`; `missing name` or `name is no string` or `name is "
    "empty`; `missing age` or `age is no whole number` (true and 3.0 are none) or `age is out of range` (0 to 150); `unknown KEY` for the "
    "alphabetically first key besides name, age and email; `bad email` where email is there and is no string with exactly one @ and something on "
    "both sides. Exit code 1 when there was any, else 0 and no output.",
    """cat > validate.py <<'CODE'
import json, sys
def problem(r):
    if not isinstance(r, dict): return 'not an object'
    if 'name' not in r: return 'missing name'
    if not isinstance(r['name'], str): return 'name is no string'
    if not r['name']: return 'name is empty'
    if 'age' not in r: return 'missing age'
    if type(r['age']) is not int: return 'age is no whole number'
    if not 0 <= r['age'] <= 150: return 'age is out of range'
    extra = sorted(set(r) - {'name', 'age', 'email'})
    if extra: return 'unknown ' + extra[0]
    if 'email' in r:
        e = r['email']
        if not isinstance(e, str) or e.count('@') != 1 or not all(e.split('@')): return 'bad email'
bad = [(i, p) for i, p in enumerate(map(problem, json.load(open(sys.argv[1])))) if p]
for i, p in bad: print(i, p)
sys.exit(bool(bad))
CODE
""",
    [
        {"kind": "command", "argv": [_PYTHON, "validate.py", "in.json"], "exit_code": 1, "files": {"in.json": """[{"name": "a", "age": 1}, [],
 {"age": 3}, {"name": 5, "age": 1}, {"name": "", "age": 1}, {"name": "b"}, {"name": "b", "age": true}, {"name": "b", "age": 3.0},
 {"name": "b", "age": 151}, {"name": "b", "age": 0, "zip": 1, "tag": 2}, {"name": "b", "age": 2, "email": "@x"},
 {"name": "b", "age": 2, "email": "a@b@c"}, {"name": "b", "age": 150, "email": "a@b"}, {"name": "b", "age": 2, "email": null}]"""},
         "stdout": "1 not an object\n2 missing name\n3 name is no string\n4 name is empty\n5 missing age\n6 age is no whole number\n"
                   "7 age is no whole number\n8 age is out of range\n9 unknown tag\n10 bad email\n11 bad email\n13 bad email\n"},
        {"kind": "command", "argv": [_PYTHON, "validate.py", "in.json"], "files": {"in.json": '[{"name": "x", "age": 9}]'}, "stdout": ""},
    ],
)  # fmt: skip

DRAFTS = {"roman": ROMAN, "wrap": WRAP, "c-program": C_PROGRAM, "backup": BACKUP, "validator": VALIDATOR}
