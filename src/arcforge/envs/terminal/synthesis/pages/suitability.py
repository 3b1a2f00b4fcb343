"""Whether a terminal task can be made of a page: something in it can be run offline with what a sandbox has, and little of it needs
a network, the machine or a screen.

GLM-5 report, section 4.2.2: of the pages of quality, those are kept that suit tasks in a terminal.
"""

from __future__ import annotations

import re
from collections import Counter

from arcforge.core.messages import Value
from arcforge.envs.search.pages.page import Page
from arcforge.envs.terminal.synthesis.pages.glance import OUTSIDE, here

FEWEST_USES = 3
"""Options, prompts and lines of code: below it, a page tells of a thing and not how it is used."""
MOST_OUTSIDE = 12.0
"""Words of one kind of NEEDS in 1,000: above it, the page is about what a sandbox does not have."""
MOST_TOOLS = 8
WORDS = frozenset(
    "as at date file groups init last link look make more reset split test time which who write yes".split()
)
"""Commands that are words too: before an option in prose ("such as -x") they are none, and count only after a prompt."""
NEEDS: dict[str, frozenset[str]] = {
    "a network": frozenset(
        "network networks server servers tcp udp ip socket sockets client clients daemon cloud internet dns".split()
    ),
    "the machine": frozenset(
        "kernel device devices boot hardware driver drivers firmware partition partitions cgroup cgroups namespace namespaces systemd "
        "mount mounted superuser interrupt cpu cpus disk disks usb pci container containers".split()
    ),
    "a screen": frozenset(
        "window windows widget widgets display displays mouse keyboard gui x11 cursor toolkit pixel pixels screen screens".split()
    ),
}
_WORD = re.compile(r"[a-z][a-z0-9]*")
_OPTION = re.compile(r"(?<![\w-])--?[A-Za-z][\w-]*")
_PROMPT = re.compile(r"^\s*[$%]\s+([A-Za-z][\w.+-]*)", re.MULTILINE)
_CALLED = re.compile(r"(?<![\w./-])([a-z][\w+-]*(?:\.\d+)?)\s+(?:-[A-Za-z]\b|--[a-z])")
_CODE: dict[str, tuple[str, re.Pattern[str]]] = {
    "python3": ("python", re.compile(r"^\s*(?:>>> |import \w+$|from [\w.]+ import |def \w+\(.*\):)", re.MULTILINE)),
    "gcc": ("c", re.compile(r"^\s*#\s?include\s*[<\"]", re.MULTILINE)),
    "node": (
        "javascript",
        re.compile(r"\brequire\(['\"]|^\s*(?:const|let) [\w{ ,}]+ = |^import .* from '", re.MULTILINE),
    ),
    "perl": ("perl", re.compile(r"^\s*(?:use [A-Z][\w:]+|my [$@%]\w+)", re.MULTILINE)),
}
_COMMAND_PAGE = re.compile(r"(?:^|/)([^/]+)\.[168]\w*")


class Suitability(Value):
    """reason: why no task is made of the page; empty for one that suits. tools: what can be run here of what it tells, most used
    first. options, uses: how often options, and commands or code, are seen in it."""

    reason: str
    tools: tuple[str, ...]
    options: int
    uses: int


def suitability(page: Page) -> Suitability:
    options = len(_OPTION.findall(page.text))
    called = [name for name in _CALLED.findall(page.text) if name not in WORDS]
    used = Counter(name for name in (*_PROMPT.findall(page.text), *called) if name not in OUTSIDE)
    tools = Counter({name: count for name, count in used.items() if here(name)})
    for command, (_, pattern) in _CODE.items():
        if here(command) and (count := len(pattern.findall(page.text))):
            tools[command] += count
    if found := _COMMAND_PAGE.search(page.page_id):
        name = found[1] if here(found[1]) else re.split(r"[-_]", found[1])[0]
        if here(name):
            tools[name] += max(1, options)
    uses = sum(tools.values())
    named = tuple(name for name, _ in tools.most_common(MOST_TOOLS))
    return Suitability(reason=_unsuited(page, named, uses), tools=named, options=options, uses=uses)


def _unsuited(page: Page, tools: tuple[str, ...], uses: int) -> str:
    words = Counter(_WORD.findall(page.text.lower()))
    total = max(1, sum(words.values()))
    for need, terms in NEEDS.items():
        if 1000 * sum(words[term] for term in terms) / total > MOST_OUTSIDE:
            return f"needs {need}"
    if not tools:
        return "nothing that can be run here"
    return "" if uses >= FEWEST_USES else "tells of a thing and not how it is used"
