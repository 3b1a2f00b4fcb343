"""Page readers: text, headings, links, fields and definitions of each form, from real files."""

import gzip
import shutil

import pytest
from search_pages import write_manual, write_sphinx

from arcforge.envs.search.pages.folder import form_of, list_folders, load, read

WORDS = "a page that says enough to be kept as one, which takes some twenty words or even a few more of them"


def page(folder, page_id):
    return read(load(page_id, list_folders([folder]).paths[page_id]))


def spans_hold(read_page):
    """Every offset that a page gives leads to the text that it is about."""
    for link in read_page.links:
        assert read_page.text[link.start : link.end] == link.text
    for section in read_page.sections:
        assert read_page.text[section.start :].startswith(section.title)
    for field in read_page.fields:
        assert field.value.split()[0] in read_page.text[field.start : field.end]


def test_sphinx_without_its_navigation(tmp_path):
    write_sphinx(tmp_path)
    found = page(tmp_path, "roots.html")
    assert found.title == "roots — About roots" and "not part of the page" not in found.text
    assert [(t.kind, t.name) for t in found.terms][:2] == [("py module", "roots"), ("py function", "roots.roots_0")]
    term = found.terms[1]
    assert found.text[term.start : term.end].endswith("New in version 3.5.")
    assert any(link.target == "leaves.html#leaves.leaves_2" for link in found.links)
    assert [(field.key, field.value) for field in found.fields] == [("Source code", "Lib/roots.py")]
    spans_hold(found)


def test_plain_html_with_tables_broken_tags_and_entities(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x.html").write_text(
        f"<html><title>A &amp; B</title><body><script>no()</script><nav>no</nav><h2>Part #</h2><p>{WORDS} &lt;tag&gt; "
        "<a href='../other.html#here'>other</a> <a href='https://example.org/'>web</a><table><tr><th>Key</th><td>value 1</td></tr>"
        "<tr><th>Version</th><th>Changes</th></tr></table><pre>  kept\n   as is</pre><ul><li>one<li>two"
    )
    found = page(tmp_path, "sub/x.html")
    assert found.title == "A & B" and "no" not in found.text.split() and "<tag>" in found.text
    assert [link.target for link in found.links] == ["other.html#here", "https://example.org/"]
    assert [(field.key, field.value) for field in found.fields] == [("Key", "value 1")]
    assert "kept\n   as is" in found.text and found.sections[0].title == "Part"
    spans_hold(found)


def test_markdown_and_restructuredtext(tmp_path):
    (tmp_path / "a.md").write_text(
        f"# Title\n\n{WORDS} and [a link](b.rst#part), `code`.\n\n```\n# no heading\n```\n\n## Second\n\nEnd.\n"
    )
    (tmp_path / "b.rst").write_text(
        f"Title\n=====\n\n:Author: Ada Quint\n\n{WORDS} ``code`` and `another <a.md>`_ and :pep:`8`.\n\nPart\n----\n\n"
        ".. versionadded:: 3.4\n\nEnd.\n"
    )
    markdown, rst = page(tmp_path, "a.md"), page(tmp_path, "b.rst")
    assert [s.title for s in markdown.sections] == ["Title", "Second"] and markdown.links[0].target == "b.rst#part"
    assert [s.title for s in rst.sections] == ["Title", "Part"] and "New in version 3.4." in rst.text
    assert [link.target for link in rst.links] == ["a.md", "PEP 8"] and rst.fields[0].value == "Ada Quint"
    spans_hold(markdown)
    spans_hold(rst)


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_manual_pages(tmp_path):
    write_manual(tmp_path)
    found = page(tmp_path, "man2/grow.2")
    assert found.title == "grow(2)" and found.names == ("grow", "regrow") and found.summary == "make a tree grow"
    assert {"NAME", "ERRORS", "SEE ALSO"} <= {section.title for section in found.sections}
    assert [link.target for link in found.links] == ["fell(2)"]
    assert {field.key: field.value for field in found.fields} == {"date": "2023-02-05", "source": "Forest manual 6.03"}
    spans_hold(found)


@pytest.mark.parametrize(
    ("name", "form"),
    [("x/README", "txt"), ("copyright", "txt"), ("changelog.Debian", "txt"), ("open.2", "man"), ("Foo::Bar.3pm", "man"),
     ("a.HTM", "html"), ("notes.md", "md"), ("x.c", None), ("libz.so.1", None), ("picture.png", None)],
)  # fmt: skip
def test_the_name_tells_the_form(name, form):
    assert form_of(name) == form


def test_gzipped_pages_skipped_patterns_and_links_of_the_file_system(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    (tmp_path / "one" / "a.txt.gz").write_bytes(gzip.compress(WORDS.encode()))
    (tmp_path / "one" / "b.txt").symlink_to("a.txt.gz")
    (tmp_path / "one" / "away.txt").symlink_to("/etc/hostname")
    (tmp_path / "two" / "c.txt").write_text(WORDS)
    (tmp_path / "two" / ".hidden.txt").write_text(WORDS)
    listing = list_folders([tmp_path / "one", tmp_path / "two"], ["two/*"])
    assert list(listing.paths) == ["one/a.txt"] and listing.redirects == {"one/b.txt": "one/a.txt"}
    assert listing.skipped == {"asked for": 1}
    assert read(load("one/a.txt", listing.paths["one/a.txt"])).text == WORDS
