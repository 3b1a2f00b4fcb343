"""tar, zip and gzip: unpacked, looked through, and packed again."""

from __future__ import annotations

import gzip
import io
import random
import tarfile
import zipfile
from typing import Any

from arcforge.envs.terminal.draft import Draft, sha256
from arcforge.envs.terminal.families.files import _tree


def _tar(files: dict[str, bytes], compression: str) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime, entry.mode = len(content), 1_600_000_000, 0o644
            archive.addfile(entry, io.BytesIO(content))
    return gzip.compress(raw.getvalue(), mtime=0) if compression == "gz" else raw.getvalue()


def _zip(files: dict[str, bytes]) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), content)
    return raw.getvalue()


def archives(rng: random.Random, level: int) -> Draft:
    """One archive becomes another with fewer files; above level 1 an archive stands inside it."""
    files = _tree(rng, 10 * level)
    kinds = {"tar": "old.tar", "tar.gz": "old.tar.gz", "zip": "old.zip"}
    source, target = rng.sample(list(kinds), 2)
    dropped = rng.choice(sorted({path.rpartition(".")[2] for path in files}))
    kept = {path: raw for path, raw in files.items() if not path.endswith(f".{dropped}")}
    inner: dict[str, bytes] = {}
    if level > 1:
        inner = {f"inner-{path}": raw for path, raw in _tree(rng, 4).items() if "/" not in path} or {
            "inner-a.txt": b"a\n"
        }
    packed = {**files, "nested.tar.gz": _tar(inner, "gz")} if inner else files
    raw = _zip(packed) if source == "zip" else _tar(packed, source.rpartition(".")[2])
    told = (
        f"/app/{kinds[source]} is an archive. Make /app/new.{target} with the same files under the same paths, without those whose "
        f"name ends in `.{dropped}`."
    )
    unpack = {"zip": f"unzip -q {kinds[source]} -d work"}.get(source, f"mkdir work; tar -xf {kinds[source]} -C work")
    solve = [unpack, f"find work -type f -name '*.{dropped}' -delete"]
    wanted = {path: sha256(raw) for path, raw in kept.items()}
    if inner:
        told += (
            " The archive has another one in it, nested.tar.gz: leave that out, and put the files of it in its place, "
            "at the top of the new archive, whatever they end in."
        )
        solve.append("tar -xzf work/nested.tar.gz -C work; rm work/nested.tar.gz")
        wanted.update({path: sha256(raw) for path, raw in inner.items()})
    pack = {
        "zip": "(cd work && zip -qr ../new.zip .)",
        "tar": "(cd work && tar -cf ../new.tar *)",
        "tar.gz": "(cd work && tar -czf ../new.tar.gz *)",
    }
    solve.append(pack[target])
    checks: list[dict[str, Any]] = [
        {"kind": "archive", "path": f"new.{target}", "members": wanted},
        {"kind": "bytes", "path": kinds[source], "sha256": sha256(raw)},
    ]
    if level > 2:
        biggest = max(kept, key=lambda path: (len(kept[path]), path))
        told += (
            " Also write /app/biggest.gz: the content, compressed with gzip, of the largest file of those that stay from the outer "
            "archive (of equally large ones the one whose path is last by byte value)."
        )
        solve.insert(
            2,
            "find work -type f ! -name nested.tar.gz -printf '%s %P\\n' | LC_ALL=C sort -k1,1n -k2,2 | tail -n1 | cut -d' ' -f2- > .big",
        )
        solve.insert(3, 'gzip -c "work/$(cat .big)" > biggest.gz')
        checks.append({"kind": "gzip", "path": "biggest.gz", "sha256": sha256(kept[biggest])})
    solve.append("rm -rf work .big")
    return Draft(told, "\n".join(solve), checks, {kinds[source]: raw}, "", ("zip", "unzip"))
