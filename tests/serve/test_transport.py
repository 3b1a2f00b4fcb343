"""Tickets: real processes that put, get, release, stop and are killed."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from arcforge.core import segments
from arcforge.core.errors import EngineError, UserError
from arcforge.serve.engine import EngineTimeout
from arcforge.serve.transport import transport

SENDER = """
import json, resource, sys
from arcforge.serve.transport import transport
mine = transport(sys.argv[1], float(sys.argv[2]))
for line in sys.stdin:
    command, argument = json.loads(line)
    if command == "put":
        block = bytes(range(256))
        answer = mine.put([b"head", memoryview(bytearray(block * argument)), b""])
    elif command == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (argument, argument))
        answer = None
    else:
        answer = mine.release(argument)
    print(json.dumps(answer), flush=True)
"""
READER = """
import json, sys
from arcforge.serve.transport import transport
ticket = json.loads(sys.argv[1])
reader = transport(ticket["transport"])
print(len(reader.get(ticket, 5.0)))
"""


class Sender:
    def __init__(self, process):
        self.process = process

    def ask(self, command, argument):
        self.process.stdin.write(json.dumps([command, argument]) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@contextmanager
def sender(name, ttl=60.0):
    command = [sys.executable, "-c", SENDER, name, str(ttl)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield Sender(process)
    finally:
        process.send_signal(signal.SIGCONT)
        process.stdin.close()
        try:
            process.wait(10)
        finally:
            process.kill()
            process.stdout.close()
            process.stderr.close()


@pytest.fixture(params=["shared_memory", "nixl"])
def name(request):
    if request.param == "nixl":
        pytest.importorskip("nixl", reason="the package nixl is optional")
    return request.param


@pytest.fixture
def reader(name):
    mine = transport(name)
    yield mine
    mine.close()


def expected(blocks):
    return b"head" + bytes(range(256)) * blocks


def until(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def gone(reader, ticket):
    try:
        reader.get(ticket, 1.0)
    except EngineError:
        return True
    return False


def file_of(ticket):
    return segments.folder() / ticket["name"]


def test_bytes_arrive_whole_and_stay_valid_after_release(name, reader):
    with sender(name) as other:
        tickets = [other.ask("put", blocks) for blocks in (0, 1, 4096)]
        assert all(len(json.dumps(ticket)) < 2000 for ticket in tickets)
        views = [reader.get(ticket, 5.0) for ticket in tickets]
        again = reader.get(tickets[1], 5.0)
        for ticket in tickets:
            reader.release(ticket)
        assert [bytes(view) for view in (*views, again)] == [expected(n) for n in (0, 1, 4096, 1)]
        assert not views[2].readonly


def test_either_side_releases_and_doing_it_twice_does_no_harm(name, reader):
    with sender(name) as other:
        first, second, third = (other.ask("put", 16) for _ in range(3))
        reader.release(first)
        reader.release(first)
        other.ask("release", second)
        until(lambda: gone(reader, first) and gone(reader, second))
        assert reader.get(third, 5.0) == expected(16)
        other.ask("release", first)


def test_own_tickets_and_nothing_at_all(name, reader):
    own, empty = reader.put([b"mine"]), reader.put([])
    assert reader.get(own, 1.0) == b"mine" and reader.get(empty, 1.0) == b""
    reader.release(own)
    reader.release(empty)
    assert gone(reader, own)


def test_a_sender_that_ends_takes_what_it_put_with_it(name, reader):
    with sender(name) as other:
        ticket = other.ask("put", 64)
        view = reader.get(ticket, 5.0)
        other.process.stdin.close()
        assert other.process.wait(10) == 0
        assert gone(reader, ticket)
        assert view == expected(64)
        reader.release(ticket)


def test_what_nobody_releases_expires(name, reader):
    with sender(name, ttl=0.3) as other:
        ticket = other.ask("put", 64)
        until(lambda: gone(reader, ticket))
        until(lambda: name == "nixl" or not file_of(ticket).exists())


@pytest.mark.parametrize("name", ["shared_memory"], indirect=True)
def test_a_killed_senders_bytes_are_there_until_they_expire_and_any_sender_removes_them(name, reader):
    with sender(name, ttl=1.5) as other:
        ticket = other.ask("put", 64)
        other.process.kill()
        other.process.wait()
    assert reader.get(ticket, 1.0) == expected(64)
    with sender(name, ttl=0.2) as next_one:
        next_one.ask("put", 1)
        until(lambda: not file_of(ticket).exists())
    assert gone(reader, ticket)


@pytest.mark.parametrize("name", ["shared_memory"], indirect=True)
def test_a_stopped_sender_holds_nobody_up(name, reader):
    with sender(name) as other:
        ticket = other.ask("put", 64)
        other.process.send_signal(signal.SIGSTOP)
        assert reader.get(ticket, 0.0) == expected(64)
        reader.release(ticket)


@pytest.mark.parametrize("name", ["nixl"], indirect=True)
def test_a_sender_that_does_not_answer_and_one_that_is_dead(name, reader):
    with sender(name) as other:
        ticket, start = other.ask("put", 64), time.monotonic()
        other.process.send_signal(signal.SIGSTOP)
        with pytest.raises(EngineTimeout, match=r"within 0\.5 s"):
            reader.get(ticket, 0.5)
        assert time.monotonic() - start < 5
        other.process.send_signal(signal.SIGCONT)
        assert reader.get(ticket, 5.0) == expected(64)
        other.process.kill()
        other.process.wait()
        assert gone(reader, ticket)
        reader.release(ticket)


def test_a_bad_ticket_is_the_callers_mistake(name, reader):
    ticket = reader.put([b"x"])
    elsewhere = "nixl" if name == "shared_memory" else "shared_memory"
    bad = [{}, [], "x", {**ticket, "transport": elsewhere}, {**ticket, "size": "1"}, {**ticket, "size": True}]
    bad += [{key: value for key, value in ticket.items() if key != missing} for missing in ticket]
    if name == "shared_memory":
        names = (
            "../../etc/passwd",
            "/etc/passwd",
            "arcforge-handoff-1-x",
            "",
            ticket["name"] + ".part",
            "a\nb",
            "run-7",
        )
        bad += [{**ticket, "name": other} for other in names]
    else:
        bad += [{**ticket, "agent": "no base64!"}, {**ticket, "address": -1}]
    for wrong in bad:
        for use in (lambda t: reader.get(t, 1.0), reader.release):
            with pytest.raises(UserError, match="ticket") as told:
                use(wrong)
            assert "\n" not in str(told.value)
    assert reader.get(ticket, 1.0) == b"x"


@pytest.mark.parametrize("name", ["shared_memory"], indirect=True)
def test_another_size_than_the_tickets_is_refused(name, reader):
    ticket = reader.put([b"four"])
    with pytest.raises(EngineError, match="holds 4 bytes, not 5"):
        reader.get({**ticket, "size": 5}, 1.0)


def test_a_reader_in_another_process_is_silent_and_removes_nothing(name, reader):
    ticket = reader.put([b"x" * 5000])
    command = [sys.executable, "-W", "error", "-c", READER, json.dumps(ticket)]
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (done.stdout, done.stderr if name == "shared_memory" else "", done.returncode) == ("5000\n", "", 0)
    assert reader.get(ticket, 1.0) == b"x" * 5000


@pytest.mark.parametrize("name", ["shared_memory"], indirect=True)
def test_a_fork_of_the_sender_removes_nothing_when_it_ends(name, reader):
    source = SENDER.replace("    print(", "    import os\n    os.fork() or sys.exit()\n    os.wait()\n    print(")
    command = [sys.executable, "-c", source, name, "60"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        ticket = Sender(process).ask("put", 3)
        assert reader.get(ticket, 1.0) == expected(3)
        process.stdin.close()
    assert gone(reader, ticket)


@pytest.mark.parametrize("name", ["shared_memory"], indirect=True)
def test_no_room_is_told(name, reader):
    with sender(name) as other:
        other.ask("limit", 1000)
        with pytest.raises(ValueError):  # no answer
            other.ask("put", 64)
        assert (
            "EngineError: shared memory cannot be written: File too large; free some of it"
            in other.process.stderr.read()
        )


def test_threads_share_a_transport(name, reader):
    wrong = []

    def work(number):
        for turn in range(20 if name == "shared_memory" else 4):
            sent = bytes([number, turn]) * 1000
            ticket = reader.put([sent[:7], sent[7:]])
            if reader.get(ticket, 5.0) != sent:
                wrong.append((number, turn))
            reader.release(ticket)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not wrong and not any(thread.is_alive() for thread in threads)


def test_the_contents_are_readable_by_this_user_only():
    mine = transport("shared_memory")
    ticket = mine.put([b"a prompt"])
    assert os.stat(file_of(ticket)).st_mode & 0o777 == 0o600
    mine.close()
    assert not file_of(ticket).exists()


def test_an_unknown_transport_and_one_that_is_not_installed():
    with pytest.raises(UserError, match="none of shared_memory, nixl"):
        transport("carrier-pigeon")
    try:
        import nixl  # noqa: F401
    except ImportError:
        with pytest.raises(UserError, match=r"pip install arcforge\[nixl\]"):
            transport("nixl")
