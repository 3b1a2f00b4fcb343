"""Repository-level sequences: a package as one text, dependencies before the files that import them.

GLM-5 report, section 2.3: mid-training concatenates the files of a repository. The order is that of DeepSeek-Coder:
imports parsed, files sorted topologically, cycles broken by taking the file with the fewest imports still missing.
"""

from __future__ import annotations

import ast
import warnings
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

from arcforge.data.sources import Document

Graph = Mapping[str, frozenset[str]]
SOURCE_FOLDERS = ("src", "lib")


def repositories(documents: Iterable[Document]) -> list[Document]:
    """One document per group (path = group), files in dependency order, each under a comment with its path."""
    groups: dict[str, list[Document]] = defaultdict(list)
    for document in documents:
        groups[document.group].append(document)
    return [Document(group, repository_text(files), group) for group, files in sorted(groups.items())]


def repository_text(files: Sequence[Document]) -> str:
    return "\n".join(f"# {file.path}\n{file.text.rstrip()}\n" for file in dependency_order(files))


def dependency_order(files: Sequence[Document]) -> list[Document]:
    """Files with what they import first; the order does not depend on the order given."""
    by_path = {file.path: file for file in files}
    graph = import_graph(files)
    return [by_path[path] for component in components(graph) for path in _break_cycle(component, graph)]


def import_graph(files: Iterable[Document]) -> dict[str, frozenset[str]]:
    """Path -> paths it imports among the files. A file that does not parse imports nothing."""
    by_path = {file.path: file for file in files}
    modules = {_module(path): path for path in sorted(by_path)}
    graph = {}
    for path in sorted(by_path):
        found = {modules[name] for name in _imported(by_path[path], modules.keys())}
        graph[path] = frozenset(found - {path})
    return graph


def components(graph: Graph) -> list[list[str]]:
    """Strongly connected components by Tarjan's algorithm, imported ones first (its order of completion).

    Iterative: an import chain may be longer than Python's stack.
    """
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    open_nodes: list[str] = []
    is_open: set[str] = set()
    result: list[list[str]] = []

    def enter(node: str) -> tuple[str, Iterator[str]]:
        index[node] = low[node] = len(index)
        open_nodes.append(node)
        is_open.add(node)
        return node, iter(sorted(graph[node]))

    for root in sorted(graph):
        work = [enter(root)] if root not in index else []
        while work:
            node, neighbours = work[-1]
            for other in neighbours:
                if other not in index:
                    work.append(enter(other))
                    break
                if other in is_open:
                    low[node] = min(low[node], index[other])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    cut = open_nodes.index(node)
                    result.append(sorted(open_nodes[cut:]))
                    is_open.difference_update(open_nodes[cut:])
                    del open_nodes[cut:]
    return result


def _break_cycle(component: Sequence[str], graph: Graph) -> list[str]:
    left, order = set(component), []
    while left:
        following = min(left, key=lambda path: (len(graph[path] & left), path))
        left.remove(following)
        order.append(following)
    return order


def _module(path: str) -> str:
    """The dotted name under which Python imports the file. Folders of sources are not part of it."""
    *folders, name = path.split("/")
    parts = folders if name == "__init__.py" else [*folders, name.removesuffix(".py")]
    return ".".join(parts[1:] if folders and folders[0] in SOURCE_FOLDERS else parts)


def _imported(file: Document, modules: Container[str]) -> Iterator[str]:
    """Names of known modules that the file imports; `from a import b` is a.b when that is a module, else a."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # SyntaxWarning of the text read, nothing of ours
            tree = ast.parse(file.text)
    except (SyntaxError, ValueError, RecursionError):
        return
    package = _module(file.path).split(".")
    if not file.path.endswith("__init__.py"):
        package.pop()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: max(0, len(package) + 1 - node.level)] if node.level else []
            names = [".".join(filter(None, [*base, node.module, alias.name])) for alias in node.names]
        else:
            continue
        yield from (known for name in names if (known := _longest(name, modules)))


def _longest(name: str, modules: Container[str]) -> str:
    """The longest dotted prefix of `name` that is a known module, or ""."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name
