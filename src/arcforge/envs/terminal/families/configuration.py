"""Configuration files and environment variables."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from arcforge.envs.terminal.draft import Draft
from arcforge.envs.terminal.families.pools import CITIES, SERVICES, WORDS
from arcforge.envs.terminal.families.tables import PYTHON

_KEYS = ["port", "workers", "timeout", "retries", "region", "log_level", "buffer", "backlog"]


def config(rng: random.Random, level: int) -> Draft:
    """An INI file edited in place: values changed, keys added, a section dropped; comments and order stay."""
    sections = rng.sample(SERVICES, 2 + level)
    lines, places = ["# settings of the services", ""], {}
    for section in sections:
        lines.append(f"[{section}]")
        for key in rng.sample(_KEYS, 3 + level):
            if rng.random() < 0.3:
                lines.append(f"# {key} was set by hand")
            places[section, key] = len(lines)
            lines.append(f"{key} = {_value(rng, key)}")
        lines.append("")
    changes = rng.sample(sorted(places), level + 1)
    told, solve, new = [], [], list(lines)
    for section, key in changes:
        value = _value(rng, key, lines[places[section, key]].partition(" = ")[2])
        told.append(f"- set `{key}` of [{section}] to `{value}`")
        solve.append(f"sed -i '/^\\[{section}\\]/,/^\\[/ s/^{key} = .*/{key} = {value}/' settings.ini")
        new[places[section, key]] = f"{key} = {value}"
    if level > 1:
        section, value = rng.choice(sections), rng.randint(10, 99)
        told.append(f"- add the line `quota = {value}` right below the head of [{section}]")
        solve.append(f"sed -i '/^\\[{section}\\]/a quota = {value}' settings.ini")
        new.insert(new.index(f"[{section}]") + 1, f"quota = {value}")
    if level > 2:
        gone = rng.choice(sections)
        told.append(
            f"- after that, remove the section [{gone}]: its head and everything up to the head of the next section or the end of the file"
        )
        solve.append(f"awk '/^\\[/ {{drop = ($0 == \"[{gone}]\")}} !drop' settings.ini > .new; mv .new settings.ini")
        start = new.index(f"[{gone}]")
        end = next((i for i in range(start + 1, len(new)) if new[i].startswith("[")), len(new))
        new = new[:start] + new[end:]
    instruction = (
        "Edit /app/settings.ini in place, in this order, and change nothing else in it (comments and order stay):\n\n"
    )
    checks: list[dict[str, Any]] = [{"kind": "text", "path": "settings.ini", "text": "\n".join(new) + "\n"}]
    return Draft(instruction + "\n".join(told), "\n".join(solve), checks, {"settings.ini": "\n".join(lines) + "\n"})


def _value(rng: random.Random, key: str, other_than: str = "") -> str:
    while True:
        if key == "region":
            value = rng.choice(CITIES).lower()
        elif key == "log_level":
            value = rng.choice(["debug", "info", "warning", "error"])
        else:
            value = str(rng.randint(1, 9000))
        if value != other_than:
            return value


def environment(rng: random.Random, level: int) -> Draft:
    """Layers of .env files merged by precedence, references expanded, a template rendered."""
    names = [
        f"{service.upper()}_{key.upper()}"
        for service in rng.sample(SERVICES, 3)
        for key in rng.sample(_KEYS, level + 1)
    ]
    layers = ["base.env", "staging.env", "local.env"][: 1 + level]
    merged, files = _layered(rng, names, layers, refers=level > 1)
    resolved = _resolve(merged)
    told, solve = [*_told_of_layers(layers, refers=level > 1)], _EXPAND.replace("LAYERS", repr(layers))
    checks: list[dict[str, Any]] = [{"kind": "json", "path": "final.json", "value": resolved}]
    if level > 2:
        used = rng.sample(names, 3)
        template = "".join(f"{rng.choice(WORDS)}: @{name}@ ({rng.choice(WORDS)})\n" for name in used) + "plain @ sign\n"
        files["template.txt"] = template
        told.append(
            "Write /app/rendered.txt: /app/template.txt with every `@NAME@` replaced by the variable's final value."
        )
        rendered = template
        for name in used:
            rendered = rendered.replace(f"@{name}@", resolved[name])
        solve += _RENDER
        checks.append({"kind": "text", "path": "rendered.txt", "text": rendered})
    return Draft("\n".join(told), PYTHON.format(solve), checks, files)


def _layered(
    rng: random.Random, names: Sequence[str], layers: Sequence[str], refers: bool
) -> tuple[dict[str, str], dict[str, str | bytes]]:
    """(what the layers come to, its references not expanded; the files). refers: values may refer to names of before."""
    merged: dict[str, str] = {}
    files: dict[str, str | bytes] = {}
    for index, layer in enumerate(layers):
        chosen = names if not index else rng.sample(names, max(1, len(names) // 2))
        lines = [f"# {layer}"]
        for name in chosen:
            value = _value(rng, name.rpartition("_")[2].lower())
            if refers and merged and rng.random() < 0.3:
                value = f"{value}-${{{rng.choice(sorted(set(merged) - {name}) or [name])}}}"
            quoted = f'"{value}"' if rng.random() < 0.4 else value
            lines.append(f"{name}={quoted}")
            merged[name] = value
        files[f"env/{layer}"] = "\n".join([*lines, ""]) + "\n"
    return merged, files


def _told_of_layers(layers: Sequence[str], refers: bool) -> list[str]:
    told = [
        f"The files {', '.join('/app/env/' + layer for layer in layers)} have lines NAME=value; a later file overrides an earlier "
        "one. Values may be in double quotes, which are no part of them. Lines that begin with # and empty lines say nothing.",
    ]
    if refers:
        told.append(
            "A `${NAME}` in a value stands for the final value of that variable, itself expanded; one that leads back to itself "
            "stands for nothing (an empty text) where the circle closes, that is where a name comes up that is being expanded already."
        )
    return [*told, "Write /app/final.json: an object of all names and their final values, all of them strings."]


_EXPAND = r"""import re, json
values = {}
for layer in LAYERS:
    for line in open('env/' + layer):
        line = line.strip()
        if line and not line.startswith('#'):
            name, _, value = line.partition('=')
            values[name] = value.strip('"')
def expand(name, seen):
    if name in seen: return ''
    return re.sub(r'\$\{(\w+)\}', lambda m: expand(m[1], seen | {name}), values.get(name, ''))
final = {name: expand(name, set()) for name in values}
json.dump(final, open('final.json', 'w'))
"""
_RENDER = "open('rendered.txt', 'w').write(re.sub(r'@(\\w+)@', lambda m: final[m[1]], open('template.txt').read()))\n"


def _resolve(values: dict[str, str]) -> dict[str, str]:
    def expand(name: str, seen: frozenset[str]) -> str:
        if name in seen:
            return ""
        text, out = values[name], ""
        while "${" in text:
            before, _, rest = text.partition("${")
            inner, _, text = rest.partition("}")
            out += before + expand(inner, seen | {name})
        return out + text

    return {name: expand(name, frozenset()) for name in values}
