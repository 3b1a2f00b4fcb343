from pathlib import Path

import pytest

from arcforge.core.errors import UserError
from arcforge.data.sources import Document, split, standard_library


def write(root: Path, files: dict[str, bytes]) -> str:
    for name, raw in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(raw)
    return str(root)


def test_standard_library_is_clean(library):
    paths = {document.path for document in library}
    assert {"argparse.py", "json/decoder.py", "asyncio/base_events.py"} <= paths
    folders = {part for path in paths for part in path.split("/")[:-1]}
    assert not folders & {"test", "tests", "idlelib", "turtledemo", "site-packages", "pydoc_data"}
    assert not any("_sysconfigdata" in path for path in paths)
    assert 4_000_000 < sum(len(document.text) for document in library) < 20_000_000
    assert next(d.path for d in library if d.group == "json") == "json/__init__.py"


def test_standard_library_is_repeatable(library):
    assert standard_library() == library


def test_split_is_by_module_and_about_the_share_asked_for(library):
    train, held = split(library)
    assert {d.path for d in train} | {d.path for d in held} == {d.path for d in library}
    assert not {d.group for d in train} & {d.group for d in held}
    groups = {d.group for d in library}
    assert 0.02 < len({d.group for d in held}) / len(groups) < 0.12
    assert split(library) == (train, held)
    assert {d.group for d in split(library, seed=1)[1]} != {d.group for d in held}


def test_side_of_a_module_does_not_depend_on_the_others(library):
    held = {d.group for d in split(library)[1]}
    half = [d for d in library if d.group < "m" or d.group in held]
    assert {d.group for d in split(half)[1]} == held


def test_small_folder(tmp_path):
    root = write(
        tmp_path,
        {
            "a.py": b"x = 1\r\ny = 2\n",
            "pkg/b.py": b"import a\n",
            "pkg/tests/c.py": b"no = 1\n",
            "latin.py": b"# \xff\xfe\n",
            "empty.py": b"\n",
            "table.py": b"# written by gencodec.py\n",
            ".hidden/d.py": b"x = 1\n",
        },
    )
    documents = standard_library(root)
    assert documents == [Document("a.py", "x = 1\ny = 2\n", "a"), Document("pkg/b.py", "import a\n", "pkg")]
    train, held = split(documents, share=0.0)
    assert len(train) == len(held) == 1
    train, held = split(documents, share=1.0)
    assert len(train) == len(held) == 1


def test_user_errors_name_the_key(tmp_path):
    with pytest.raises(UserError, match=r"data\.source.*no such folder"):
        standard_library(str(tmp_path / "absent"))
    with pytest.raises(UserError, match=r"data\.source.*no \.py files"):
        standard_library(str(tmp_path))
    with pytest.raises(UserError, match=r"data\.source.*two top-level"):
        split([Document("a.py", "x", "a")])
