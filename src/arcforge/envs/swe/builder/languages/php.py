"""PHP with Debian's PHPUnit and Composer's autoloader: test files one by one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from arcforge.envs.swe.builder.clone import Clone
from arcforge.envs.swe.builder.languages.debian_packages import check, rows_of
from arcforge.envs.swe.builder.languages.scripted import Plan, Run, Scripted

_REPORT = "/tmp/arcforge-junit.xml"
# Which extensions are loaded is told in /etc, which is not seen where suites run.
_SETTINGS = "/tmp/arcforge-php"
_EXTENSIONS = "ctype dom fileinfo iconv mbstring phar posix simplexml tokenizer xml xmlreader xmlwriter"


def install(clone: Clone, commit: str, folder: Path, requirements: Sequence[str] | None = None) -> Scripted:
    """Nothing is installed; what the project depends on has to be among Debian's packages."""
    if requirements is not None:
        check(requirements)
    wanted = (
        tuple(requirements)
        if requirements is not None
        else rows_of(["php-cli", "php-mbstring", "php-xml", "phpunit", "composer"])
    )
    return Scripted("php", _plan, wanted, (), (), commit)


def _plan(options: tuple[str, ...], folders: tuple[Path, ...], tests: Sequence[str]) -> Plan:
    build = (
        f"mkdir -p {_SETTINGS}; for name in {_EXTENSIONS}; do echo extension=$name; done > {_SETTINGS}/extensions.ini; "
        "[ -f vendor/autoload.php ] || composer dump-autoload --no-interaction --no-plugins --ignore-platform-reqs"
    )
    phpunit = (
        "php -d memory_limit=1G -d include_path=.:/usr/share/php /usr/bin/phpunit --colors=never "
        f"--do-not-cache-result --no-coverage --no-logging --log-junit {_REPORT}"
    )
    runs = [
        Run(path, f"rm -f {_REPORT}; {phpunit} {quote(path)} >/tmp/out 2>&1; c=$?; cat {_REPORT} || tail -5 /tmp/out; exit $c", "junit")
        for path in tests
    ]  # fmt: skip
    environment = {"COMPOSER_ALLOW_SUPERUSER": "1", "COMPOSER_DISABLE_NETWORK": "1", "PHP_INI_SCAN_DIR": _SETTINGS}
    return Plan(build, tuple(runs), tuple(environment.items()))
