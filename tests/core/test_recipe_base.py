"""A TOML file over its base."""

import pytest

from arcforge.core.config import Config, build, count_fields, override, read_toml
from arcforge.core.errors import UserError


def write(folder, **files):
    for name, text in files.items():
        (folder / f"{name}.toml").parent.mkdir(exist_ok=True)
        (folder / f"{name}.toml").write_text(text)


def refusal(path):
    with pytest.raises(UserError) as error:
        read_toml(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_values_are_merged_over_the_base_section_by_section(tmp_path):
    write(tmp_path, low="x = 1\n[a]\none = 1\ntwo = [1, 2]\n[a.deep]\nkept = true\n[b]\nleft = 3\n")
    write(tmp_path, middle='base = "low.toml"\n[a]\ntwo = [9]\n[a.deep]\nadded = 1\n')
    (tmp_path / "folder").mkdir()
    write(tmp_path / "folder", top='base = "../middle.toml"\nx = 5\n[c]\nnew = "yes"\n')
    assert read_toml(tmp_path / "folder" / "top.toml") == {
        "x": 5,
        "a": {"one": 1, "two": [9], "deep": {"kept": True, "added": 1}},
        "b": {"left": 3},
        "c": {"new": "yes"},
    }


def test_a_circle_of_bases_is_refused(tmp_path):
    write(tmp_path, one='base = "two.toml"\n', two='base = "one.toml"\n', self='base = "./self.toml"\n')
    assert "one.toml is read already; the bases go round in a circle" in refusal(tmp_path / "one.toml")
    assert "circle" in refusal(tmp_path / "self.toml")


def test_a_base_that_is_missing_or_no_path_is_named(tmp_path):
    write(tmp_path, lost='base = "nowhere.toml"\n', many='base = ["a.toml", "b.toml"]\n')
    assert "nowhere.toml: no such recipe" in refusal(tmp_path / "lost.toml")
    assert "many.toml: base: write the path of one other recipe" in refusal(tmp_path / "many.toml")


class Inner(Config):
    one: int = 1
    other: int = 2


class Outer(Config):
    plain: Inner = Inner()
    optional: Inner | None = None
    text: str | None = None


def test_fields_of_a_section_that_may_be_left_out_are_counted_and_named():
    assert count_fields(Outer) == 2 + 2 + 1
    built = build(Outer, override({}, ["optional.one=7"]), "here")
    assert built.optional is not None and built.optional.one == 7
    with pytest.raises(UserError, match=r"unknown key optional\.ohter; the nearest is optional\.other"):
        build(Outer, override({}, ["optional.ohter=7"]), "here")
