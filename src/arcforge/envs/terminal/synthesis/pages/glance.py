"""What the name of a page tells, before it is read: rendering a manual page takes longer than all that is asked of its text."""

from __future__ import annotations

import re
import shutil
from functools import cache
from pathlib import PurePosixPath

PATHS = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
"""Where a sandbox finds its commands."""
OUTSIDE = frozenset(
    """gcloud gsutil bq kubectl docker podman buildah skopeo ssh scp sftp curl wget nc telnet ftp systemctl journalctl loginctl
    machinectl mount umount fsck mkfs reboot shutdown iptables nft ip tc""".split()
)
"""Commands that do nothing of use without a network, a daemon or the machine itself; so do those whose names begin with one of
them and a dash or an underscore."""
_LANGUAGE = re.compile(
    r"(?:^|/)man/(?!man\d)[a-z]{2,3}(?:[_@.][\w.@-]+)?/|(?:^|/)(?!man\d)[a-z]{2}(?:_[A-Z]{2})?(?:\.[\w-]+)?/man\d\w*/"
)
_RECORD = re.compile(
    r"(?:copyright|changelog|changes|news|history|authors|thanks|credits|todo|acks|maintainers|contributing|code_of_conduct|"
    r"governance|license|licence|onboarding|security|genindex|search|index|contents)(?:[.-][\w.-]*)?",
    re.IGNORECASE,
)
_CHANGES = re.compile(r"/(?:changelogs|RelNotes|whatsnew)/")
_COMMAND = re.compile(r"(?P<name>.+)\.[168]\w*")


def glance(page_id: str) -> str:
    """Why a page is not read at all; empty for one that is."""
    name = PurePosixPath(page_id).name
    if _LANGUAGE.search(page_id):
        return "another language"
    if _RECORD.fullmatch(name) or _CHANGES.search(page_id):
        return "a record, an index or a licence"
    if found := _COMMAND.fullmatch(name):
        command = re.split(r"[-_]", found["name"])[0]
        if command in OUTSIDE or found["name"] in OUTSIDE:
            return "a command that needs more than a sandbox"
        # A page of `git-add` is about `git`.
        if not here(found["name"]) and not here(command):
            return "a command that is not here"
    return ""


@cache
def here(command: str) -> bool:
    """Whether a sandbox on this machine has the command."""
    return shutil.which(command, path=PATHS) is not None
