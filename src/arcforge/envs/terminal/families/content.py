"""Lines and characters: text, regular expressions, encodings."""

from __future__ import annotations

import random
from collections import Counter

from arcforge.envs.terminal.draft import Draft, sha256
from arcforge.envs.terminal.families.pools import FAMILY_NAMES, GOODS, PEOPLE, SERVICES, WORDS, address, sentence


def text(rng: random.Random, level: int) -> Draft:
    """One to three questions about one text."""
    lines = [sentence(rng).capitalize() + rng.choice([".", ".", "!", "", ","]) for _ in range(30 * level * level)]
    lines += [rng.choice(lines) for _ in range(5 * level)]
    rng.shuffle(lines)
    name = f"{rng.choice(WORDS)}.txt"
    questions = rng.sample([_frequent, _first_of_each, _longest, _with_words, _columns], level)
    parts = [question(rng, lines, name) for question in questions]
    return Draft(
        f"The file /app/{name} holds {len(lines)} lines of text.\n\n"
        + "\n".join(f"{i}. {told}" for i, (told, _, _, _) in enumerate(parts, 1)),
        "\n".join(solution for _, solution, _, _ in parts),
        [{"kind": "text", "path": path, "text": wanted} for _, _, path, wanted in parts],
        {name: "\n".join(lines) + "\n"},
    )


def _frequent(rng: random.Random, lines: list[str], name: str) -> tuple[str, str, str, str]:
    count = rng.randint(3, 12)
    counts = Counter(word.strip(".,!").lower() for line in lines for word in line.split())
    top = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:count]
    told = (
        f"Write the {count} most frequent words to /app/top.txt, one `word count` a line, most frequent first. Words are "
        "compared in lower case, without the characters `.`, `,` and `!`; words that are as frequent stand in alphabetical order."
    )
    solve = f"tr -d '.,!' < {name} | tr A-Z a-z | tr -s ' ' '\\n' | grep . | LC_ALL=C sort | uniq -c | "
    solve += f"LC_ALL=C sort -k1,1nr -k2,2 | head -n {count} | awk '{{print $2, $1}}' > top.txt"
    return told, solve, "top.txt", "".join(f"{word} {number}\n" for word, number in top)


def _first_of_each(rng: random.Random, lines: list[str], name: str) -> tuple[str, str, str, str]:
    told = "Write /app/unique.txt: the lines of the file in their order, each only where it stands for the first time."
    return told, f"awk '!seen[$0]++' {name} > unique.txt", "unique.txt", "\n".join(dict.fromkeys(lines)) + "\n"


def _longest(rng: random.Random, lines: list[str], name: str) -> tuple[str, str, str, str]:
    count = rng.randint(2, 6)
    numbered = sorted(enumerate(lines, 1), key=lambda pair: (-len(pair[1]), pair[0]))[:count]
    told = (
        f"Write the {count} longest lines to /app/longest.txt, longest first, as `number:line` with the number of the line "
        "in the file, from 1. Of lines of one length the one that comes first in the file comes first."
    )
    solve = f'awk \'{{print length($0) "\\t" NR "\\t" $0}}\' {name} | sort -t"$(printf \'\\t\')" -k1,1nr -k2,2n | '
    solve += f"head -n {count} | cut -f2- | sed 's/\\t/:/' > longest.txt"
    return told, solve, "longest.txt", "".join(f"{number}:{line}\n" for number, line in numbered)


def _with_words(rng: random.Random, lines: list[str], name: str) -> tuple[str, str, str, str]:
    first, second = rng.sample(sorted({word for line in lines for word in line.lower().strip(".,!").split()}), 2)
    kept = [line for line in lines if _has(line, first) and not _has(line, second)]
    told = (
        f"Write to /app/matching.txt, in their order, the lines that contain the whole word `{first}` and not the whole word "
        f"`{second}`, in capitals or not. The file is empty when there are none."
    )
    solve = f"(grep -iw {first} {name} || true) | (grep -viw {second} || true) > matching.txt"
    return told, solve, "matching.txt", "".join(f"{line}\n" for line in kept)


def _has(line: str, word: str) -> bool:
    return word in line.lower().replace(".", " ").replace(",", " ").replace("!", " ").split()


def _columns(rng: random.Random, lines: list[str], name: str) -> tuple[str, str, str, str]:
    column = rng.randint(1, 4)
    firsts = [line.split()[column - 1] for line in lines]
    told = (
        f"Write word number {column} of every line (counted from 1, with its punctuation) to /app/column.txt, the last "
        "line of the file first."
    )
    return (
        told,
        f"tac {name} | awk '{{print ${column}}}' > column.txt",
        "column.txt",
        "\n".join(reversed(firsts)) + "\n",
    )


def regex(rng: random.Random, level: int) -> Draft:
    """Things of a known shape, hidden among others that only look alike."""
    kinds = rng.sample([_emails, _serials, _addresses, _versions], level)
    drawn = [kind(rng, 8 * level) for kind in kinds]
    lines = []
    for _, right, wrong, _ in drawn:
        lines += [f"{sentence(rng, 1, 5)} {item} {sentence(rng, 1, 5)}" for item in [*right, *wrong]]
    lines += [sentence(rng) for _ in range(10 * level)]
    rng.shuffle(lines)
    told, solution, checks = [], [], []
    for name, right, _, (rule, pattern) in drawn:
        told.append(f"- /app/{name}.txt: {rule}")
        solution.append(f"(grep -oP '(?<!\\S){pattern}(?!\\S)' notes.txt || true) | LC_ALL=C sort -u > {name}.txt")
        checks.append(
            {"kind": "text", "path": f"{name}.txt", "text": "".join(f"{item}\n" for item in sorted(set(right)))}
        )
    instruction = (
        "From /app/notes.txt extract what is listed below. A find is a whole run of characters between spaces or the ends of "
        "the line. Each output file has one find a line, each only once, sorted by byte value (`LC_ALL=C`).\n\n"
    )
    return Draft(instruction + "\n".join(told), "\n".join(solution), checks, {"notes.txt": "\n".join(lines) + "\n"})


def _emails(rng: random.Random, count: int) -> tuple[str, list[str], list[str], tuple[str, str]]:
    domain = rng.choice(["example.com", "example.org", "example.net"])
    local = [f"{rng.choice(PEOPLE)}.{rng.choice(FAMILY_NAMES)}".lower() for _ in range(count)]
    other = "example.edu"
    wrong = [f"{name}@{other}" for name in local[:2]] + [f"{local[0]}@{domain}.", f"@{domain}", f"{local[1]}@@{domain}"]
    rule = f"e-mail addresses `local@{domain}` whose local part is made of the letters a-z, digits and dots only"
    return (
        "emails",
        [f"{name}@{domain}" for name in local],
        wrong,
        (rule, rf"[a-z0-9.]+@{domain.replace('.', chr(92) + '.')}"),
    )


def _serials(rng: random.Random, count: int) -> tuple[str, list[str], list[str], tuple[str, str]]:
    letters, digits = rng.randint(2, 4), rng.randint(3, 6)

    def serial(a: int, d: int) -> str:
        return "".join(rng.choices("ABCDEFGHJKLMNPRSTUVWXYZ", k=a)) + "-" + "".join(rng.choices("0123456789", k=d))

    wrong = [
        serial(letters + 1, digits),
        serial(letters, digits - 1),
        serial(letters, digits).lower(),
        serial(letters, digits) + "X",
    ]
    rule = f"serial numbers: exactly {letters} capital letters A-Z, a hyphen, exactly {digits} digits"
    return (
        "serials",
        [serial(letters, digits) for _ in range(count)],
        wrong,
        (rule, f"[A-Z]{{{letters}}}-[0-9]{{{digits}}}"),
    )


def _addresses(rng: random.Random, count: int) -> tuple[str, list[str], list[str], tuple[str, str]]:
    right = [address(rng) for _ in range(count)]
    wrong = ["192.0.2.256", "203.0.113", "198.51.100.7.1", f"{right[0]}/24", "999.1.1.1"]
    part = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
    rule = "IPv4 addresses: four decimal numbers from 0 to 255 without leading zeros, joined by dots"
    return "addresses", right, wrong, (rule, rf"(?:{part}\.){{3}}{part}")


def _versions(rng: random.Random, count: int) -> tuple[str, list[str], list[str], tuple[str, str]]:
    names = [f"{rng.choice(SERVICES)}-{rng.choice(GOODS)}" for _ in range(count)]
    right = [f"{name}=={rng.randint(0, 9)}.{rng.randint(0, 20)}.{rng.randint(0, 30)}" for name in names]
    wrong = [f"{names[0]}=1.2.3", f"{names[1]}==1.2", f"{names[2]}==1.2.3rc1", f"{names[3]}>=1.2.3"]
    rule = "pinned versions `name==X.Y.Z`: a name of a-z and hyphens, two equal signs, three decimal numbers joined by dots"
    return "versions", right, wrong, (rule, r"[a-z-]+==[0-9]+\.[0-9]+\.[0-9]+")


_ENCODINGS = {
    "latin-1": "ISO-8859-1",
    "utf-16-le": "UTF-16LE",
    "utf-16-be": "UTF-16BE",
    "cp1252": "WINDOWS-1252",
    "cp437": "CP437",
}
_ACCENTED = ["café", "naïve", "über", "señor", "Ångström", "crème", "Zürich", "façade", "jalapeño", "touché"]


def encodings(rng: random.Random, level: int) -> Draft:
    """Files in several encodings and with several ends of lines, all to be UTF-8 with LF."""
    chosen = rng.sample(list(_ENCODINGS), min(len(_ENCODINGS), 1 + level))
    files: dict[str, str | bytes] = {}
    told, solution, checks = [], [], []
    for index, codec in enumerate(chosen):
        lines = [f"{sentence(rng, 2, 6)} {rng.choice(_ACCENTED)}" for _ in range(4 * level + index)]
        windows = level > 1 and rng.random() < 0.6
        plain = "\n".join(lines) + "\n"
        name = f"{rng.choice(WORDS)}{index}.txt"
        files[f"in/{name}"] = (plain.replace("\n", "\r\n") if windows else plain).encode(codec)
        told.append(f"- {name}: {_ENCODINGS[codec]}")
        solution.append(f"iconv -f {_ENCODINGS[codec]} -t UTF-8 in/{name} | tr -d '\\r' > out/{name}")
        checks.append({"kind": "bytes", "path": f"out/{name}", "sha256": sha256(plain)})
    if level == 3:
        lines = "\n".join(sentence(rng) + " " + rng.choice(_ACCENTED) for _ in range(6)) + "\n"
        files["in/bom.txt"] = b"\xef\xbb\xbf" + lines.encode()
        told.append("- bom.txt: UTF-8 with a byte order mark, which the result must not have")
        solution.append("tail -c +4 in/bom.txt > out/bom.txt")
        checks.append({"kind": "bytes", "path": "out/bom.txt", "sha256": sha256(lines)})
    instruction = (
        "Convert every file in /app/in to UTF-8 without a byte order mark and with LF line ends (some have CRLF), and write it "
        "under the same name into /app/out, which does not exist yet. Leave the content as it is otherwise, and the files in "
        "/app/in untouched. Their encodings:\n\n" + "\n".join(told)
    )
    checks += [{"kind": "bytes", "path": path, "sha256": sha256(raw)} for path, raw in files.items()]
    return Draft(instruction, "mkdir -p out\n" + "\n".join(solution), checks, files)
