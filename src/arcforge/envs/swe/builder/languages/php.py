"""PHP with Debian's PHPUnit and Composer's autoloader: test files one by one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from arcforge.envs.swe.builder.clone import Clone
from arcforge.envs.swe.builder.languages.debian_packages import check, rows_of
from arcforge.envs.swe.builder.languages.scripted import Plan, Run, Scripted

_REPORT = "/tmp/arcforge-junit.xml"


def install(clone: Clone, commit: str, folder: Path, requirements: Sequence[str] | None = None) -> Scripted:
    """Nothing is installed; what the project depends on has to be among Debian's packages."""
    if requirements is not None:
        check(requirements)
    wanted = tuple(requirements) if requirements is not None else rows_of(["php-cli", "phpunit", "composer"])
    return Scripted("php", _plan, wanted, (), (), commit)


def _plan(options: tuple[str, ...], folders: tuple[Path, ...], tests: Sequence[str]) -> Plan:
    build = "[ -f vendor/autoload.php ] || composer dump-autoload --no-interaction --no-plugins --ignore-platform-reqs"
    phpunit = (
        "php -d memory_limit=1G -d include_path=.:/usr/share/php /usr/bin/phpunit --colors=never "
        f"--do-not-cache-result --no-coverage --no-logging --log-junit {_REPORT}"
    )
    runs = [
        Run(path, f"rm -f {_REPORT}; {phpunit} {quote(path)} >/tmp/out 2>&1; c=$?; cat {_REPORT} || tail -5 /tmp/out; exit $c", "junit")
        for path in tests
    ]  # fmt: skip
    return Plan(build, tuple(runs), (("COMPOSER_ALLOW_SUPERUSER", "1"), ("COMPOSER_DISABLE_NETWORK", "1")))
