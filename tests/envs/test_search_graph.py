"""The graph over a folder of pages: what the rules read, alignment, and an update that equals a build from scratch."""

import gzip
import random
import shutil
import sqlite3
import zlib
from contextlib import closing

import pytest
from search_pages import PACKAGES, PEOPLE, write_debian, write_manual, write_proposals, write_sphinx

from arcforge.core.errors import UserError
from arcforge.envs.search.graph.build import update
from arcforge.envs.search.graph.store import GraphStore
from arcforge.envs.search.graph.view import Graph

needs_groff = pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")


def built(*folders, path=":memory:"):
    store = GraphStore(path)
    report = update(store, folders)
    return store, report


def edges(store):
    return {(s.partition(":")[2], r, o.partition(":")[2]) for s, r, o in Graph(store).edges}


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "doc"
    write_debian(root)
    write_sphinx(root / "html")
    write_proposals(root / "proposals")
    return root


def test_rules_read_the_relations_of_each_form_of_page(folder):
    found = edges(built(folder)[0])
    assert ("roots.roots_0", "defined_in", "roots") in found
    assert ("roots.roots_0", "refers_to", "leaves.leaves_2") in found
    assert ("roots.roots_1", "added_in", "python 3.6") in found
    assert ("roots", "source_file", "Lib/roots.py") in found
    assert ("proposals/prop-0002.rst", "written_by", PEOPLE[2].casefold()) in found
    assert ("proposals/prop-0002.rst", "field status", "draft") in found
    assert ("proposals/prop-0002.rst", "links_to", "proposals/prop-0001.rst") in found
    assert sum(relation == "released_by" for _, relation, _ in found) == 4 * len(PACKAGES)
    assert any(s == "libelm" and r == "licensed_under" and o in ("gpl-2+", "mit", "zlib") for s, r, o in found)


@needs_groff
def test_manual_pages_with_the_names_they_document(tmp_path):
    write_manual(tmp_path)
    store, report = built(tmp_path)
    found = edges(store)
    assert report.redirects == 1 and report.read == 2
    for fact in (
        ("grow(2)", "fails_with", "enoroot"), ("grow(2)", "declared_in", "sys/tree.h"), ("grow(2)", "part_of", "forest manual"),
        ("grow(2)", "added_in", "linux 2.6.16"), ("grow(2)", "see_also", "fell(2)"), ("fell(2)", "written_by", "ada quint"),
        ("grow(2)", "dated", "2023-02-05"),
    ):  # fmt: skip
        assert fact in {(s, r, o.casefold()) for s, r, o in found}, fact
    assert Graph(store).names("manual page:grow(2)") == ["grow(2)", "regrow(2)"]


def test_every_relation_has_its_evidence_on_the_page(folder):
    store, _ = built(folder)
    graph = Graph(store)
    for edge in graph.edges.values():
        text = store.text(edge.page)[edge.start : edge.end]
        assert text, edge
        if graph.kind(edge.object) in ("person", "CVE", "bug"):
            assert graph.text(edge.object) in text


def test_names_of_one_person_are_aligned_by_the_address_and_other_people_are_not(tmp_path):
    for package, person, email in (
        ("a", "Ondřej Surý", "o@example.org"), ("b", "Ondrej Sury", "o@example.org"), ("c", "O. Surý", "o@example.org"),
        ("d", "Ada Quint", "shared@example.org"), ("e", "Bruno Rask", "shared@example.org"),
    ):  # fmt: skip
        (tmp_path / package).mkdir()
        (tmp_path / package / "changelog.Debian").write_text(
            f"{package}{package} (1.0-1) unstable; urgency=low\n\n  * A change that is told in quite a few words, so that the "
            f"page says enough.\n\n -- {person} <{email}>  Mon, 01 Jan 2018 10:00:00 +0000\n"
        )
    graph = Graph(built(tmp_path)[0])
    people = {e for e in graph.entities if graph.kind(e) == "person"}
    assert len(people) == 3
    assert {"Ada Quint", "Bruno Rask"} < {graph.text(e) for e in people}


def test_licences_dates_and_versions_are_normalised(folder):
    graph = Graph(built(folder)[0])
    assert not any("expat" in e for e in graph.entities) and any(e == "license:mit" for e in graph.entities)
    dates = [graph.text(e) for e in graph.entities if graph.kind(e) == "date"]
    assert dates and all(len(date) == 10 and date[4] == date[7] == "-" for date in dates)


def change(folder, rng):
    """Add, change and remove some pages."""
    pages = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in rng.sample(pages, 3):
        path.unlink()
    for path in rng.sample([p for p in pages if p.exists() and p.name == "changelog.Debian"], 3):
        text = path.read_text()
        path.write_text(
            text.replace(rng.choice(PEOPLE), rng.choice(PEOPLE)).replace("bark", rng.choice(["leaf", "root"]))
        )
    write_debian(folder / f"more{rng.randrange(9)}", rng.randrange(99), releases=1)


def test_an_updated_graph_equals_one_built_from_scratch(folder):
    store, rng = built(folder)[0], random.Random(3)
    for _ in range(5):
        change(folder, rng)
        report = update(store, [folder])
        assert report.unchanged > 0 and report.read > 0 and report.removed > 0
        assert store.dump() == built(folder)[0].dump()


@needs_groff
def test_a_page_of_its_own_takes_its_name_back_and_gives_it_up_again(tmp_path):
    write_manual(tmp_path)
    (tmp_path / "man2" / "regrow.2").unlink()
    store, _ = built(tmp_path)
    assert "manual page:regrow(2)" not in Graph(store).entities
    own = (tmp_path / "man2" / "fell.2").read_text().replace("fell", "regrow")
    (tmp_path / "man2" / "regrow.2").write_text(own)
    update(store, [tmp_path])
    assert "manual page:regrow(2)" in Graph(store).entities
    assert store.dump() == built(tmp_path)[0].dump()
    (tmp_path / "man2" / "regrow.2").unlink()
    update(store, [tmp_path])
    assert store.dump() == built(tmp_path)[0].dump()


class Killed(Exception):
    pass


def test_a_build_that_was_killed_goes_on(folder, tmp_path):
    class Dies(GraphStore):
        puts = 0

        def put(self, *arguments):
            if self.puts == 7:
                raise Killed
            self.puts += 1
            super().put(*arguments)

    dying = Dies(tmp_path / "graph.db")
    with pytest.raises(Killed):
        update(dying, [folder])
    dying.close()
    store, report = built(folder, path=tmp_path / "graph.db")
    assert report.unchanged == 7 and report.read > 0
    assert store.dump() == built(folder)[0].dump()


def test_bad_bytes_empty_files_and_damaged_archives_do_not_stop_a_build(folder):
    (folder / "bad.html").write_bytes(b"\xff\xfe<p>" + b"word \xe9 " * 40 + b"<p><b><table><tr><td>")
    (folder / "bad.md").write_bytes(b"# T\x00itle\n\n" + b"caf\xe9 au lait " * 20)
    (folder / "empty.txt").write_bytes(b"")
    (folder / "torn.txt.gz").write_bytes(b"\x1f\x8b\x08nonsense")
    damaged = bytearray(gzip.compress(b"a page of quite a few words that was whole once " * 30))
    damaged[12:20] = b"\xff" * 8
    (folder / "damaged.txt.gz").write_bytes(bytes(damaged))
    with pytest.raises(zlib.error):
        gzip.decompress(bytes(damaged))
    (folder / "section.html").write_text("<p>" + "word " * 40 + "<![foo[ x ]]>")
    store, report = built(folder)
    assert "café au lait" in store.text("bad.md") and "word é" in store.text("bad.html")
    assert report.left_out == {"cannot be read": 2, "fewer than 20 words": 1, "not HTML": 1}
    assert update(store, [folder]).left_out == report.left_out


def test_equal_pages_are_one_page_under_two_ids(folder):
    shutil.copy(folder / "html" / "roots.html", folder / "html" / "zz-copy.html")
    store, report = built(folder)
    assert report.redirects == 1 and not store.text("html/zz-copy.html") and store.text("html/roots.html")


def test_wrong_folders_and_files_are_told(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        built(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no page here"):
        built(tmp_path)
    for where in ("a", "b"):
        write_debian(tmp_path / where / "doc")
    with pytest.raises(UserError, match=r"a/doc and .*b/doc/../doc: both are called doc"):
        built(tmp_path / "a" / "doc", tmp_path / "b" / "doc" / ".." / "doc")
    with pytest.raises(UserError, match="both are called doc"):
        built(tmp_path / "a" / "doc", tmp_path / "a" / "doc")
    (tmp_path / "other.db").write_text("this is no database at all, but some text of a certain length")
    with pytest.raises(UserError, match="no graph can be kept here"):
        GraphStore(tmp_path / "other.db")


def test_a_graph_of_another_version_is_told_in_one_line(tmp_path):
    with closing(sqlite3.connect(tmp_path / "graph.db")) as db:
        db.executescript(
            "create table meta(key text primary key, value text); insert into meta values('version', '1');"
            "create table pages(page text primary key, digest text, form text, title text, text text, subject text);"
        )
    with pytest.raises(UserError) as told:
        GraphStore(tmp_path / "graph.db")
    assert str(told.value) == f"{tmp_path}/graph.db: a graph of version 1, this is version 2; build it anew elsewhere"


def test_opening_a_graph_that_somebody_writes_to_does_not_write(tmp_path):
    writer = GraphStore(tmp_path / "graph.db")
    writer.db.execute("begin immediate")
    reader = GraphStore(tmp_path / "graph.db")
    assert reader.meta("version") == writer.meta("version") != "" and not reader.db.in_transaction
