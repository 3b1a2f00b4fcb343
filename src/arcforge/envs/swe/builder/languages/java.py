"""Java with Debian's libraries in /usr/share/java: compiled by javac, test files one by one by JUnit's console."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from shlex import quote

from arcforge.envs.swe.builder.clone import Clone
from arcforge.envs.swe.builder.languages.debian_packages import check, owners, rows_of
from arcforge.envs.swe.builder.languages.scripted import Plan, Run, Scripted
from arcforge.envs.swe.builder.rejection import Rejected

_JARS = Path("/usr/share/java")
_CONSOLE = (
    "junit-platform-console", "junit-platform-commons", "junit-platform-engine", "junit-platform-launcher",
    "junit-platform-reporting", "junit-jupiter-api", "junit-jupiter-engine", "junit-jupiter-params", "junit-vintage-engine",
    "junit4", "hamcrest", "opentest4j", "opentest4j-reporting-events", "opentest4j-reporting-schema", "apiguardian-api", "picocli",
    "univocity-parsers",
)  # fmt: skip
_MOCKS = ("mockito-core", "byte-buddy", "byte-buddy-agent", "objenesis")  # a pom.xml calls them by other names
_ARTIFACT = re.compile(r"<dependency>.*?<artifactId>\s*([\w.-]+)\s*</artifactId>", re.S)
_MAIN, _TEST = "src/main/java", "src/test/java"
_PLACE = "/tmp/arcforge-java"
_QUICK = ("-Xmx1g", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto")  # to start, not to run long


def install(clone: Clone, commit: str, folder: Path, requirements: Sequence[str] | None = None) -> Scripted:
    """Nothing is installed. Rejected("install"): no folders as Maven has them."""
    if requirements is not None:
        check(requirements)
    paths = clone.paths(commit)
    modules = Counter(path.partition(_TEST)[0] for path in paths if f"{_TEST}/" in path)
    if not modules:
        raise Rejected("install", f"no {_TEST}")
    module = modules.most_common(1)[0][0]
    jars = _jars(clone, commit, [path for path in (f"{module}pom.xml", "pom.xml") if path in set(paths)])
    wanted = tuple(requirements) if requirements is not None else _packages(jars)
    return Scripted("java", _plan, wanted, (module, *jars), (), commit)


def _jars(clone: Clone, commit: str, files: Sequence[str]) -> list[str]:
    """Names of those of JUnit, of Mockito and of what the project's pom.xml names, as far as they are there."""
    named = [name for file in files for name in _ARTIFACT.findall(clone.text(commit, file))]
    return [name for name in dict.fromkeys([*_CONSOLE, *_MOCKS, *named]) if (_JARS / f"{name}.jar").exists()]


def _packages(jars: Sequence[str]) -> tuple[str, ...]:
    files = {path for name in jars for path in (_JARS / f"{name}.jar", (_JARS / f"{name}.jar").resolve())}
    return rows_of(["openjdk-17-jdk-headless", "junit4", "junit5", *owners(files)])


def _plan(options: tuple[str, ...], folders: tuple[Path, ...], tests: Sequence[str]) -> Plan:
    """Sources that are newer than the last compilation are compiled again, against the classes of the others. The chosen tests are
    compiled together and run one by one."""
    module, *jars = options
    here, classes, place = f"./{module}", f"{_PLACE}/classes", f"{_PLACE}/tests"
    libraries = ":".join(str(_JARS / f"{name}.jar") for name in jars)
    javac = f"javac {' '.join(f'-J{flag}' for flag in _QUICK)} -encoding UTF-8 -nowarn -proc:none -implicit:class"
    newer = f'$([ -e {_PLACE}/done ] && echo "-newer {_PLACE}/done")'
    build = (
        f"mkdir -p {classes}; find {here}{_MAIN} -name '*.java' ! -name module-info.java {newer} > {_PLACE}/files; "
        f"[ ! -s {_PLACE}/files ] || {{ {javac} -cp {classes}:{libraries} -d {classes} @{_PLACE}/files && touch {_PLACE}/done; }}"
    )
    inside = [test for test in tests if f"{module}{_TEST}/" in test]
    compiler = f"{javac} -cp {classes}:{libraries} -sourcepath {here}{_TEST} -d {place}"
    if inside:  # one by one where not all can be: a test that does not compile breaks no other
        together, each = " ".join(map(quote, inside)), "; ".join(f"{compiler} {quote(test)}" for test in inside)
        build += f" && {{ mkdir -p {place}; {compiler} {together} || {{ {each}; }}; true; }} > {place}.log 2>&1"
    paths = f"{place}:{classes}:src/main/resources:src/test/resources:{_TEST}:{libraries}"

    def command(number: int, test: str) -> str:
        name = PurePosixPath(test.partition(f"{_TEST}/")[2]).with_suffix("")
        report = f"{_PLACE}/report-{number}"
        console = (
            f"java {' '.join(_QUICK)} -cp {paths} org.junit.platform.console.ConsoleLauncher --details none "
            f"--select-class {quote('.'.join(name.parts))} --reports-dir {report} --disable-banner --fail-if-no-tests"
        )
        return (
            f"[ -e {place}/{quote(str(name))}.class ] || {{ tail -5 {place}.log; exit 2; }}; "
            f"cd {here}.; {console} > {report}.log 2>&1; code=$?; cat {report}/*.xml || tail -5 {report}.log; exit $code"
        )

    runs = [Run(test, command(number, test), "junit") for number, test in enumerate(inside)]
    return Plan(build, tuple(runs))
