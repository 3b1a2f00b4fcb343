"""A small folder of real files: Debian's copyright and changelog forms, Sphinx HTML, headers of proposals, manual pages."""

import random
from pathlib import Path

FIRST = "Ada Bruno Carla Dario Edda Frida Gustav Hanna Ivo Jana Karel Lotte Milos Nora".split()
LAST = "Quint Rask Sorel Tamm Urban Vogel Wirth Xander Yates Zoll Amsel Brandt Castor Dorn".split()
PEOPLE = [f"{first} {last}" for first, last in zip(FIRST, LAST)]
PACKAGES = [
    f"lib{stem}" for stem in "alder birch cedar dogwood elm fir ginkgo hazel ironwood juniper larch maple oak".split()
]
MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()

SPHINX = """<!DOCTYPE html><html><head><title>{name} &#8212; {what}</title></head><body>
<div class="sphinxsidebar">not part of the page</div><div role="main">
<section id="module-{name}"><h1>{name} — {what}<a class="headerlink" href="#x">¶</a></h1>
<p><strong>Source code:</strong> <a href="https://example.org/{name}.py">Lib/{name}.py</a></p>
<p>This module has been written to be read in a test of pages, and it says a little of what trees are made of.</p>
{items}</section></div></body></html>"""
ITEM = """<dl class="py function"><dt class="sig sig-object py" id="{module}.{name}">
<code>{module}.{name}(x)</code></dt><dd><p>Grow by x, much as <a href="{other}.html#{other}.{far}">{other}.{far}()</a> does.</p>
<div class="versionadded"><p>New in version {version}.</p></div></dd></dl>"""


def write_debian(root: Path, seed: int = 0, releases: int = 4) -> None:
    rng = random.Random(seed)
    for number, package in enumerate(PACKAGES):
        folder = root / package
        folder.mkdir(parents=True, exist_ok=True)
        holder, packager = rng.sample(PEOPLE, 2)
        (folder / "copyright").write_text(
            f"Format: https://example.org/copyright-format\nUpstream-Name: {package.removeprefix('lib')}\n"
            f"Source: https://example.org/{package}/\n\nFiles: *\nCopyright: 2001-20{10 + number}, {holder}\n"
            f"License: {rng.choice(['GPL-2+', 'MIT', 'Zlib', 'Expat'])}\n\nThis was debianized by {packager} long ago.\n"
        )
        entries = []
        for release in reversed(range(1, releases + 1)):
            person, thanked = rng.sample(PEOPLE, 2)
            bug, cve = rng.randrange(100000, 999999), rng.randrange(1000, 9999)
            entries.append(
                f"{package} (1.{release}-{rng.randint(1, 9)}) unstable; urgency=medium\n\n"
                f"  * Mend the bark. (Closes: #{bug}) Thanks to {thanked} for the patch.\n"
                f"  * Fix CVE-20{10 + release}-{cve}.\n\n"
                f" -- {person} <{person.split()[0].lower()}@example.org>  Mon, {rng.randint(1, 28):02d} "
                f"{rng.choice(MONTHS)} 20{10 + release} 10:00:00 +0000\n"
            )
        (folder / "changelog.Debian").write_text("\n".join(entries))


def write_sphinx(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for name, other in (("roots", "leaves"), ("leaves", "roots")):
        items = "".join(
            ITEM.format(module=name, name=f"{name}_{n}", other=other, far=f"{other}_{2 - n}", version=f"3.{n + 5}")
            for n in range(3)
        )
        (root / f"{name}.html").write_text(SPHINX.format(name=name, what=f"About {name}", items=items))


def write_proposals(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for number in range(1, 5):
        (root / f"prop-{number:04d}.rst").write_text(
            f"Proposal: {number}\nTitle: Proposal number {number}\nAuthor: {PEOPLE[number]} <{number}@example.org>,\n"
            f"        {PEOPLE[number + 1]}\nStatus: {'Final' if number % 2 else 'Draft'}\n\nAbstract\n========\n\n"
            f"This proposal follows `the one before <prop-{max(1, number - 1):04d}.rst>`_ and says in some more words "
            "what should be done about trees and why it should be done at all.\n"
        )


def write_manual(root: Path) -> None:
    """Needs groff to be read."""
    (root / "man2").mkdir(parents=True, exist_ok=True)
    (root / "man2" / "grow.2").write_text(
        '.TH grow 2 2023-02-05 "Forest manual 6.03"\n.SH NAME\ngrow, regrow \\- make a tree grow\n.SH LIBRARY\n'
        "Standard tree library\n.RI ( libtree )\n.SH SYNOPSIS\n.nf\n.B #include <sys/tree.h>\n.fi\n.SH DESCRIPTION\n"
        "The tree grows by as much as was asked for, unless it is told not to, or the ground is frozen.\n.SH ERRORS\n"
        ".TP\n.B ENOROOT\nThe tree has no root.\n.SH VERSIONS\nThis call was added in Linux 2.6.16.\n.SH SEE ALSO\n"
        ".BR fell (2)\n"
    )
    (root / "man2" / "fell.2").write_text(
        '.TH fell 2 2021-03-22 "Forest manual 6.03"\n.SH NAME\nfell \\- end a tree\n.SH DESCRIPTION\n'
        "The tree falls where nobody stands, with a sound if somebody hears it and maybe without.\n.SH AUTHORS\n"
        "Written by Ada Quint and Bruno Rask.\n.SH SEE ALSO\n.BR grow (2)\n"
    )
    (root / "man2" / "regrow.2").write_text(".so man2/grow.2\n")
