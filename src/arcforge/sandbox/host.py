"""What of this machine a sandbox may see, and whether bubblewrap works here."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import arcforge
from arcforge.sandbox.folder import new_directory
from arcforge.sandbox.spec import own_proc

_LINKS = ("bin", "sbin", "lib", "lib64", "lib32")
_ETC = (
    "alternatives", "bash.bashrc", "ca-certificates.conf", "debian_version", "fonts", "group", "inputrc", "java-17-openjdk",
    "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "magic", "maven", "mime.types", "nsswitch.conf", "os-release",
    "passwd", "profile", "protocols", "services", "shells", "ssl/certs", "ssl/openssl.cnf", "terminfo", "timezone",
)  # fmt: skip
_TOP = (
    "dev", "home", "mnt", "opt", "proc", "root", "run", "srv", "tmp", "usr", "var/tmp", "var/log", "var/lib", "workspace",
)  # fmt: skip
_PROBE_SECONDS = 20
BARE = ("bwrap", "--unshare-all", "--unshare-user", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev")
"""The least of bubblewrap: namespaces of its own, in which the whole machine is seen."""


@functools.cache
def bubblewrap_works() -> bool:
    """Whether bubblewrap is installed and may make its namespaces here."""
    if shutil.which("bwrap") is None:
        return False
    try:
        return subprocess.run([*BARE, "true"], capture_output=True, timeout=_PROBE_SECONDS, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


@functools.cache
def tell_once(line: str) -> None:
    """To standard error, the first time only."""
    print(line, file=sys.stderr, flush=True)


def contained_python(scripts: Iterable[Path], writable: Path) -> list[str]:
    """bubblewrap's command up to what it shall run: namespaces of its own for this very Python. No network, nothing of this machine
    but /usr, Python, this package and the folders of `scripts`, where they are outside; only `writable` may be written."""
    argv = ["bwrap", "--unshare-all", "--unshare-user", "--die-with-parent", "--as-pid-1", "--hostname", "sandbox"]
    argv += ["--uid", "1000", "--gid", "1000", "--cap-drop", "ALL", "--ro-bind", "/usr", "/usr"]
    for name in _LINKS:
        if os.path.islink(f"/{name}"):
            argv += ["--symlink", os.readlink(f"/{name}"), f"/{name}"]
        elif os.path.isdir(f"/{name}"):
            argv += ["--ro-bind", f"/{name}", f"/{name}"]
    argv += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache", *own_proc(), "--dev", "/dev", "--tmpfs", "/tmp"]
    package = Path(arcforge.__file__).resolve().parents[1]
    for path in python_folders([package, *(script.resolve().parent for script in scripts)]):
        argv += ["--ro-bind", path, path]
    argv += ["--bind", str(writable), str(writable)]
    return [*argv, "--remount-ro", "/tmp", "--remount-ro", "/dev", "--remount-ro", "/", "--"]


def python_folders(more: Sequence[Path] = ()) -> list[str]:
    """Where this Python and `more` lie, without what /usr holds already, and none inside another."""
    wanted = {Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve(), *more}
    outside = [path for path in wanted if not path.is_relative_to("/usr") and str(path) != "/"]
    return sorted(
        str(path) for path in outside if not any(path != other and path.is_relative_to(other) for other in outside)
    )


def skeleton() -> Path:
    """A fresh folder with the top of a file system: the usual folders, links into /usr, and of /etc what programs read and
    nobody minds: no keys, no shadow, no host names."""
    root = new_directory()
    for name in _TOP:
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("tmp", "var/tmp"):
        (root / name).chmod(0o1777)
    for name in _LINKS:
        if os.path.islink(f"/{name}"):
            (root / name).symlink_to(os.readlink(f"/{name}"))
    for name in _ETC:
        _copy(Path("/etc") / name, root / "etc" / name)
    (root / "etc/hosts").write_text("127.0.0.1 localhost sandbox\n")
    root.chmod(0o755)
    return root


def _copy(source: Path, target: Path) -> None:
    if not source.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, ignore_dangling_symlinks=True)
    else:
        shutil.copy2(source, target)
