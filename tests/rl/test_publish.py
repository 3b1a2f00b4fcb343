import json
import multiprocessing
import time

import pytest

from arcforge.core.errors import UserError
from arcforge.rl.publish import Publisher, latest


def writes(text):
    def save(folder):
        (folder / "model.safetensors").write_text(text)
        (folder / "nested").mkdir()
        (folder / "nested" / "config.json").write_text(text)

    return save


def test_readers_see_the_newest_complete_version_and_two_are_kept(tmp_path):
    publisher = Publisher(tmp_path / "weights")
    assert latest(tmp_path / "weights") is None
    for version in range(4):
        publisher.publish(version, writes(str(version)))
        newest = latest(tmp_path / "weights")
        assert newest.version == version and (newest.folder / "nested" / "config.json").read_text() == str(version)
    assert sorted(p.name for p in (tmp_path / "weights").iterdir()) == ["2", "3", "published.json"]


def test_a_version_number_is_never_used_twice(tmp_path):
    Publisher(tmp_path).publish(5, writes("a"))
    for version in (5, 4):
        with pytest.raises(UserError, match="versions only grow"):
            Publisher(tmp_path).publish(version, writes("b"))
    assert (latest(tmp_path).folder / "model.safetensors").read_text() == "a"


def test_a_save_that_fails_publishes_nothing_and_leaves_no_trace_after_a_restart(tmp_path):
    Publisher(tmp_path).publish(1, writes("a"))

    def broken(folder):
        (folder / "model.safetensors").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        Publisher(tmp_path).publish(2, broken)
    assert latest(tmp_path).version == 1
    Publisher(tmp_path).publish(2, writes("b"))
    assert latest(tmp_path).version == 2 and not list(tmp_path.glob(".part-*"))


def test_a_folder_renamed_just_before_a_kill_is_replaced(tmp_path):
    (tmp_path / "3").mkdir(parents=True)
    (tmp_path / "3" / "model.safetensors").write_text("from the dead")
    Publisher(tmp_path).publish(3, writes("new"))
    assert (latest(tmp_path).folder / "model.safetensors").read_text() == "new"


def _publish_for_ever(root):
    publisher = Publisher(root)
    newest = latest(root)
    version = newest.version + 1 if newest else 0
    while True:
        publisher.publish(version, writes(str(version)))
        version += 1


def test_a_killed_publisher_never_shows_a_part(tmp_path):
    context = multiprocessing.get_context("fork")
    for delay in (0.02, 0.05, 0.09):
        process = context.Process(target=_publish_for_ever, args=(tmp_path,))
        process.start()
        deadline = time.monotonic() + 20
        while latest(tmp_path) is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(delay)
        process.kill()
        process.join(10)
        newest = latest(tmp_path)
        assert (newest.folder / "nested" / "config.json").read_text() == str(newest.version)
        assert json.loads((tmp_path / "published.json").read_text())["version"] == newest.version
