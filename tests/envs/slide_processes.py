"""Which processes a renderer of slides started, and whether they are gone."""

import time
from pathlib import Path


def browsers(root):
    """Process ids of the Chromium processes below `root`."""
    return {pid for pid, name in below(root).items() if "chrom" in name or "headless" in name}


def pages(root):
    """Those of them that hold a page."""
    commands = {pid: Path(f"/proc/{pid}/cmdline") for pid in browsers(root)}
    return {pid for pid, file in commands.items() if file.exists() and b"--type=renderer" in file.read_bytes()}


def below(root):
    """Process id -> name of the processes below `root`."""
    children, names = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                name, rest = (entry / "stat").read_text().split("(", 1)[1].rsplit(")", 1)
            except OSError:
                continue
            names[int(entry.name)] = name
            children.setdefault(int(rest.split()[1]), []).append(int(entry.name))
    found, todo = [], [root]
    while todo:
        next_ones = children.get(todo.pop(), [])
        found += next_ones
        todo += next_ones
    return {pid: names[pid] for pid in found}


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def gone(what, seconds=20):
    end = time.monotonic() + seconds
    while what() and time.monotonic() < end:
        time.sleep(0.1)
    return not what()
