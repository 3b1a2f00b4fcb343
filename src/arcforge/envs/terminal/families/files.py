"""Files by name, size and time, their modes, and links."""

from __future__ import annotations

import random
from typing import Any

from arcforge.envs.terminal.draft import Draft, sha256
from arcforge.envs.terminal.families.pools import WORDS, folder_name, sentence

_ENDINGS = ["txt", "log", "csv", "conf", "md", "tmp"]


def _tree(rng: random.Random, count: int) -> dict[str, bytes]:
    """Relative path -> content; sizes from 20 to 4,000 bytes; folders up to two deep."""
    folders = ["", *(folder_name(rng) + "/" for _ in range(3))]
    folders += [folders[1] + rng.choice(WORDS) + "/"]
    files: dict[str, bytes] = {}
    while len(files) < count:
        name = f"{rng.choice(folders)}{rng.choice(WORDS)}{len(files):02d}.{rng.choice(_ENDINGS)}"
        files[name] = (sentence(rng, 5, 20) + "\n").encode() * rng.randint(1, 30)
    return files


def find(rng: random.Random, level: int) -> Draft:
    """List files by ending and size; move or delete others; rename by a rule."""
    files = _tree(rng, 12 * level)
    ending, gone, moved = rng.sample(sorted({path.rpartition(".")[2] for path in files}), 3)
    size = rng.choice([500, 800, 1200])
    listed = sorted(path for path, raw in files.items() if path.endswith(f".{ending}") and len(raw) > size)
    told = [
        f"Write /app/large.txt: the paths, relative to /app/tree and sorted by byte value, of all `.{ending}` files of more than {size} bytes there."
    ]
    solve = [
        f"(cd tree && find . -type f -name '*.{ending}' -size +{size}c | sed 's|^./||' | LC_ALL=C sort) > large.txt"
    ]
    after, checks = dict(files), list[dict[str, Any]]()
    if level > 1:
        told.append(f"Then delete every `.{gone}` file below /app/tree, and no other.")
        solve.append(f"find tree -type f -name '*.{gone}' -delete")
        after = {path: raw for path, raw in after.items() if not path.endswith(f".{gone}")}
    if level > 2:
        told.append(
            f"Then rename every `.{moved}` file below /app/tree to its name in capitals, the ending included, in its folder."
        )
        solve.append(
            f"find tree -type f -name '*.{moved}' | while read -r f; do "
            'mv "$f" "$(dirname "$f")/$(basename "$f" | tr a-z A-Z)"; done'
        )
        after = {_upper(path) if path.endswith(f".{moved}") else path: raw for path, raw in after.items()}
    else:
        told.append(
            f"Move every `.{moved}` file below /app/tree into the folder /app/moved, without its folders (no two have one name)."
        )
        solve.append(f"mkdir -p moved; find tree -type f -name '*.{moved}' -exec mv -t moved {{}} +")
        checks = [{"kind": "tree", "path": "moved", "files": _moved(after, moved)}]
        after = {path: raw for path, raw in after.items() if not path.endswith(f".{moved}")}
    checks += [
        {"kind": "text", "path": "large.txt", "text": "".join(f"{path}\n" for path in listed)},
        {"kind": "tree", "path": "tree", "files": {path: sha256(raw) for path, raw in after.items()}},
    ]
    return Draft("\n".join(told), "\n".join(solve), checks, {f"tree/{path}": raw for path, raw in files.items()})


def _moved(files: dict[str, bytes], ending: str) -> dict[str, str]:
    return {path.rpartition("/")[2]: sha256(raw) for path, raw in files.items() if path.endswith(f".{ending}")}


def _upper(path: str) -> str:
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{name.upper()}"


def permissions(rng: random.Random, level: int) -> Draft:
    """Modes by rule: scripts executable, secrets private, folders shared; wrong ones reported first."""
    files = {f"site/{path}": raw for path, raw in _tree(rng, 8 * level).items() if not path.endswith(".tmp")}
    scripts = [f"site/bin/{rng.choice(WORDS)}{n}.sh" for n in range(2 * level)]
    secrets = [f"site/keys/{rng.choice(WORDS)}{n}.key" for n in range(2 * level)]
    files.update(dict.fromkeys(scripts, b"#!/bin/bash\necho ok\n") | dict.fromkeys(secrets, b"secret\n"))
    now = {path: rng.choice(["644", "600", "755", "777", "666", "640"]) for path in files}
    script_mode, secret_mode = rng.choice(["755", "750", "700"]), rng.choice(["600", "400"])
    other_mode, folder_mode = rng.choice(["644", "640", "664"]), rng.choice(["755", "750"])
    wanted = dict.fromkeys(files, other_mode)
    wanted.update(dict.fromkeys(scripts, script_mode) | dict.fromkeys(secrets, secret_mode))
    told = (
        f"Set the modes below /app/site: `.sh` files {script_mode}, `.key` files {secret_mode}, all other files {other_mode}, "
        f"folders (also /app/site itself) {folder_mode}. Contents stay as they are."
    )
    solve = f"""find site -type d -exec chmod {folder_mode} {{}} +
find site -type f -exec chmod {other_mode} {{}} +
find site -name '*.sh' -exec chmod {script_mode} {{}} +
find site -name '*.key' -exec chmod {secret_mode} {{}} +
"""
    checks: list[dict[str, Any]] = [{"kind": "mode", "path": path, "mode": mode} for path, mode in wanted.items()]
    folders = {path.rpartition("/")[0] for path in files} | {"site"}
    checks += [{"kind": "mode", "path": path, "mode": folder_mode} for path in sorted(folders)]
    checks.append(
        {"kind": "tree", "path": "site", "files": {p.removeprefix("site/"): sha256(raw) for p, raw in files.items()}}
    )
    if level > 1:
        open_ones = sorted(path for path, mode in now.items() if int(mode, 8) & 0o002)
        told = (
            "First write /app/open.txt: the paths, relative to /app and sorted by byte value, of all files below /app/site "
            "that everybody may write (as they are now). " + told
        )
        solve = "find site -type f -perm -o+w | LC_ALL=C sort > open.txt\n" + solve
        checks.append({"kind": "text", "path": "open.txt", "text": "".join(f"{path}\n" for path in open_ones)})
    setup = "\n".join(f"chmod {mode} '{path}'" for path, mode in now.items())
    return Draft(told, solve, checks, files, setup)


def symlinks(rng: random.Random, level: int) -> Draft:
    """Dangling links to repair or to remove, absolute ones to make relative, a release to switch."""
    versions = sorted({f"{rng.randint(1, 4)}.{rng.randint(0, 9)}.{rng.randint(0, 9)}" for _ in range(3 + level)})
    files: dict[str, str | bytes] = {f"releases/{version}/app.txt": f"release {version}\n" for version in versions}
    newest = max(versions, key=lambda version: [int(part) for part in version.split(".")])
    stale = next(version for version in versions if version != newest) if len(versions) > 1 else "0.0.0"
    setup = [f"ln -s releases/{stale} current"]
    told = [
        "/app/current is a symbolic link. Make it point to the newest of the releases in /app/releases (by version, not by name), by the relative target `releases/<version>`."
    ]
    solve = ["ln -sfn releases/$(ls releases | sort -V | tail -n1) current"]
    checks: list[dict[str, Any]] = [{"kind": "link", "path": "current", "target": f"releases/{newest}"}]
    names = rng.sample(WORDS, 4 * level)
    good, dangling = names[: 2 * level], names[2 * level :]
    for name in good:
        files[f"store/{name}.txt"] = sentence(rng) + "\n"
        setup.append(f"mkdir -p links; ln -s /app/store/{name}.txt links/{name}")
    for name in dangling:
        setup.append(f"ln -s /app/store/{name}.txt links/{name}")
    told.append(
        "In /app/links: remove the links whose target does not exist, and write their names, sorted, one a line, to /app/removed.txt."
    )
    solve.append(
        "(cd links && find . -xtype l | sed 's|^./||' | LC_ALL=C sort) > removed.txt; find links -xtype l -delete"
    )
    checks.append({"kind": "text", "path": "removed.txt", "text": "".join(f"{name}\n" for name in sorted(dangling))})
    checks += [{"kind": "absent", "path": f"links/{name}"} for name in dangling]
    if level > 1:
        told.append("Make the links that stay in /app/links relative: their target has to be `../store/<name>.txt`.")
        solve.append('for f in links/*; do ln -sfn "../store/$(basename "$(readlink "$f")")" "$f"; done')
        checks += [{"kind": "link", "path": f"links/{name}", "target": f"../store/{name}.txt"} for name in good]
    else:
        checks += [{"kind": "link", "path": f"links/{name}", "target": f"/app/store/{name}.txt"} for name in good]
    return Draft("\n".join(told), "\n".join(solve), checks, files, "\n".join(setup))
