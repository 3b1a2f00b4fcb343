import sys

from hypothesis import given, settings
from hypothesis import strategies as st

from arcforge.data.repositories import components, dependency_order, import_graph, repositories
from arcforge.data.sources import Document


def files(**texts: str) -> list[Document]:
    return [Document(f"{name.replace('__', '/')}.py", text, "pkg") for name, text in texts.items()]


def order(documents: list[Document]) -> list[str]:
    return [document.path for document in dependency_order(documents)]


def test_every_form_of_import_is_seen():
    documents = [
        Document("pkg/__init__.py", "from .a import f\n", "pkg"),
        Document("pkg/a.py", "import os, json\n", "pkg"),
        Document("pkg/b.py", "from . import a\nfrom .sub.c import g\n", "pkg"),
        Document("pkg/sub/__init__.py", "", "pkg"),
        Document("pkg/sub/c.py", "from .. import a as x\nfrom ..a import f\ndef late():\n    import pkg.b\n", "pkg"),
        Document("pkg/broken.py", "from . import (\n", "pkg"),
        Document("pkg/far.py", "from .... import a\nfrom pkg import f\n", "pkg"),
    ]
    graph = import_graph(documents)
    assert graph["pkg/__init__.py"] == {"pkg/a.py"}
    assert graph["pkg/a.py"] == graph["pkg/sub/__init__.py"] == graph["pkg/broken.py"] == frozenset()
    assert graph["pkg/b.py"] == {"pkg/a.py", "pkg/sub/c.py"}
    assert graph["pkg/sub/c.py"] == {"pkg/a.py", "pkg/b.py"}
    assert graph["pkg/far.py"] == {"pkg/__init__.py"}


def test_source_folder_is_not_part_of_the_name():
    documents = [Document("src/p/a.py", "import p.b\n", "src"), Document("src/p/b.py", "", "src")]
    assert import_graph(documents)["src/p/a.py"] == {"src/p/b.py"}


def test_dependencies_come_first_whatever_the_order_given():
    documents = files(a="import b\nimport c\n", b="import c\n", c="", d="import a\n")
    assert order(documents) == order(documents[::-1]) == ["c.py", "b.py", "a.py", "d.py"]


def test_cycle_starts_with_the_fewest_missing_imports():
    documents = files(a="import b\nimport c\n", b="import a\nimport c\n", c="import a\n", z="")
    assert order(documents) == ["c.py", "a.py", "b.py", "z.py"]


graphs = st.integers(1, 12).flatmap(
    lambda n: st.lists(st.frozensets(st.integers(0, n - 1)), min_size=n, max_size=n).map(
        lambda edges: {str(i): frozenset(map(str, to - {i})) for i, to in enumerate(edges)}
    )
)


def reachable(graph, node):
    seen, work = {node}, [node]
    while work:
        for other in graph[work.pop()]:
            if other not in seen:
                seen.add(other)
                work.append(other)
    return seen


@settings(max_examples=200, deadline=None)
@given(graphs)
def test_components_are_mutual_reachability_in_dependency_order(graph):
    reach = {node: reachable(graph, node) for node in graph}
    found = components(graph)
    assert sorted(node for component in found for node in component) == sorted(graph)
    place = {node: i for i, component in enumerate(found) for node in component}
    for node in graph:
        assert {other for other in reach[node] if node in reach[other]} == {n for n in graph if place[n] == place[node]}
        assert all(place[other] <= place[node] for other in graph[node])


def test_long_chain_does_not_exhaust_the_stack():
    size = sys.getrecursionlimit() * 2
    graph = {f"{i:06}": frozenset([f"{i + 1:06}"] if i + 1 < size else []) for i in range(size)}
    assert components(graph)[0] == [f"{size - 1:06}"]


def test_repository_is_one_text_under_path_comments():
    documents = [
        Document("p/user.py", "from p import base\n\n\n", "p"),
        Document("p/base.py", "x = 1\n", "p"),
        Document("q.py", "y = 2\n", "q"),
    ]
    assert repositories(documents) == [
        Document("p", "# p/base.py\nx = 1\n\n# p/user.py\nfrom p import base\n", "p"),
        Document("q", "# q.py\ny = 2\n", "q"),
    ]


def test_real_package(library):
    found = order([document for document in library if document.group == "json"])
    assert sorted(found) == sorted(d.path for d in library if d.group == "json")
    assert found.index("json/scanner.py") < found.index("json/decoder.py") < found.index("json/__init__.py")
    assert found[-1] == "json/tool.py"
