"""Weights out of shared memory: as good as a folder, written by another process, and nothing changes when anything is wrong."""

import json
import random
import secrets
import struct
import subprocess
import sys
from multiprocessing.shared_memory import SharedMemory

import pytest
import torch
from running import CONFIG, prompts, run, tokens
from safetensors.torch import load, save

from arcforge.core import segments
from arcforge.core.errors import UserError
from arcforge.core.messages import Sampling
from arcforge.infer.engine import Engine, EngineConfig
from arcforge.model.checkpoint import fill, save_checkpoint, to_hf
from arcforge.model.initialise import new_model
from arcforge.model.shared import ImageTensors, share_weights, unshare_weights, weights
from arcforge.model.stored import StoredTensors

TRAINER = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from running import CONFIG
from arcforge.core.errors import UserError
from arcforge.model.initialise import new_model
from arcforge.model.shared import share_weights
if len(sys.argv) > 3:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
try:
    print(share_weights(new_model(CONFIG, seed=2), sys.argv[2]))
except UserError as error:
    print(error)
"""


@pytest.fixture
def name():
    chosen = f"arcforge-test-{secrets.token_hex(8)}"
    yield chosen
    unshare_weights(chosen)


@pytest.fixture(scope="module")
def image():
    return save({name: tensor.contiguous() for name, tensor in to_hf(new_model(CONFIG, seed=2))})


def trainer(folder, *arguments):
    command = [sys.executable, "-c", TRAINER, str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert not done.stderr
    return done.stdout.strip()


def write(name, image):
    with segments.written(name) as path:
        path.write_bytes(image)


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(model, before):
    return all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_running_request_goes_on_with_what_another_process_has_shared(request, name):
    size = int(trainer(request.path.parent, name))
    assert size == segments.segment(name).stat().st_size
    assert segments.segment(name).stat().st_mode & 0o777 == 0o600
    engine, new = (
        Engine(new_model(CONFIG, seed=1), EngineConfig(max_running=4, max_length=96)),
        new_model(CONFIG, seed=2),
    )
    engine.add([1, 2, 3], Sampling(max_tokens=20), "r")
    for _ in range(8):
        engine.step()
    engine.update_weights(f"shm:{name}", 5)
    while engine.has_work:
        engine.step()
    spans = engine.result("r").spans
    assert [s.version for s in spans] == [0, 5] and [len(s.ids) for s in spans] == [8, 12]
    assert same(engine.model, new.state_dict())
    asked = [(p, Sampling(temperature=0, max_tokens=9)) for p in prompts(3)]
    fresh = run(Engine(new, EngineConfig(max_running=4, max_length=96)), asked)
    assert {k: tokens(v) for k, v in run(engine, asked).items()} == {k: tokens(v) for k, v in fresh.items()}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "fp8"])
def test_a_segment_is_a_checkpoint_folders_file(tmp_path, name, dtype):
    model, one, other = new_model(CONFIG, seed=2), new_model(CONFIG, seed=1), new_model(CONFIG, seed=3)
    save_checkpoint(model, tmp_path, dtype)
    size = share_weights(model, name, dtype)
    assert segments.segment(name).read_bytes() == (tmp_path / "model-00001-of-00001.safetensors").read_bytes()
    fill(one, weights(tmp_path))
    fill(other, weights(f"shm:{name}"), at_once=True)
    assert same(other, one.state_dict()) and size > 1000


def damaged(image: bytes, kind: str) -> bytes:
    """Every name before the last stays good, so that copying as one goes would change most of the model."""
    last = [name for name, _ in to_hf(new_model(CONFIG, seed=2))][-1]
    (length,) = struct.unpack_from("<Q", image)
    cuts = {"torn values": image[:-100], "torn header": image[: length // 2], "too long": image + b"x", "empty": b""}
    if kind in cuts:
        return cuts[kind]
    if kind == "no header":
        return struct.pack("<Q", 1 << 60) + image[8:]
    if kind == "moved":
        return image.replace(b'"data_offsets":[0,', b'"data_offsets":[8,', 1)
    tensors = load(image)
    if kind == "tensor missing":
        del tensors[last]
    elif kind == "scale missing":
        tensors[last] = tensors[last].to(torch.float8_e4m3fn)
    elif kind == "tensor too small":
        tensors[last] = tensors[last][:-1].contiguous()
    elif kind == "not finite":
        tensors[last].flatten()[-1] = float("nan")
    elif kind == "whole numbers":
        tensors[last] = tensors[last].to(torch.int64)
    else:
        tensors["model.stranger.weight"] = torch.ones(3)
    return save(tensors)


@pytest.mark.parametrize(
    "kind, told",
    [
        ("tensor missing", "is missing"),
        ("tensor too small", "the config says"),
        ("scale missing", "scale_inv is missing"),
        ("not finite", "holds values that are not finite"),
        ("stranger", "belongs to no part of the model"),
        ("torn values", "cannot be read"),
        ("torn header", "cannot be read"),
        ("no header", "cannot be read"),
        ("too long", "cannot be read"),
        ("empty", "cannot be read"),
        ("moved", "cannot be read"),
        ("whole numbers", "cannot be read"),
    ],
)
def test_a_bad_update_changes_nothing(image, name, kind, told):
    write(name, damaged(image, kind))
    engine = Engine(new_model(CONFIG, seed=1), EngineConfig(max_running=1, max_length=64))
    before = state(engine.model)
    with pytest.raises(UserError, match=f"^shm:{name}: .*{told}") as error:
        engine.update_weights(f"shm:{name}", 5)
    assert "\n" not in str(error.value) and engine.version == 0 and same(engine.model, before)


def test_the_same_is_said_of_a_folder(tmp_path, image):
    for kind in ("tensor missing", "tensor too small", "scale missing", "not finite", "stranger"):
        bad = damaged(image, kind)
        (tmp_path / "model.safetensors").write_bytes(bad)
        said = []
        for source in (StoredTensors(tmp_path), ImageTensors(bad, "shm:x")):
            with pytest.raises(UserError) as error:
                fill(new_model(CONFIG, seed=1), source, at_once=True)
            said.append(str(error.value).split(": ", 1)[1])
        assert said[0] == said[1]


@pytest.mark.parametrize("source", ["shm:arcforge-test-nowhere", "shm:../etc/passwd", "shm:", "shm:a/b", "shm:x.part"])
def test_a_segment_that_is_not_there_and_a_name_that_is_none(source):
    engine = Engine(new_model(CONFIG, seed=1), EngineConfig(max_running=1, max_length=64))
    with pytest.raises(UserError, match=r"No such file|a name has letters"):
        engine.update_weights(source, 5)
    assert engine.version == 0


def test_a_reader_keeps_what_it_has_mapped_when_the_next_version_takes_its_place(name):
    first, second = new_model(CONFIG, seed=2), new_model(CONFIG, seed=3)
    share_weights(first, name)
    stored = weights(f"shm:{name}")
    share_weights(second, name)
    again = weights(f"shm:{name}")
    unshare_weights(name)
    unshare_weights(name)
    model = new_model(CONFIG, seed=1)
    fill(model, stored)
    assert same(model, first.state_dict())
    fill(model, again)
    assert same(model, second.state_dict())


def test_no_room_is_told_and_leaves_what_was_there(request, name):
    share_weights(new_model(CONFIG, seed=3), name)
    before = segments.segment(name).read_bytes()
    said = trainer(request.path.parent, name, "10000")
    assert said == f"shm:{name}: the weights cannot be written: File too large; free shared memory"
    assert segments.segment(name).read_bytes() == before
    assert not (segments.folder() / f"{name}.part").exists()


@pytest.mark.filterwarnings("error")
def test_any_buffer_holds_an_image(image):
    model = new_model(CONFIG, seed=1)
    shared = SharedMemory(create=True, size=len(image))
    try:
        shared.buf[:] = image
        for buffer in (image, bytearray(image), memoryview(image)):
            fill(model, ImageTensors(buffer, "x"))
            assert same(model, new_model(CONFIG, seed=2).state_dict())
        stored = ImageTensors(shared.buf, "x")
        fill(new_model(CONFIG, seed=1), stored)
        del stored
    finally:
        shared.close()
        shared.unlink()


def test_odd_sizes_and_no_values_at_all():
    tensors = {
        "a": torch.ones(3, dtype=torch.float16),
        "b": torch.ones(2, 0),
        "c": torch.arange(5.0),
        "d": torch.tensor(2.0),
    }
    entries, offset, values = {}, 0, b""
    for name, tensor in tensors.items():  # in this order c does not lie at a multiple of its own size
        raw = tensor.numpy().tobytes()
        code = "F16" if tensor.dtype == torch.float16 else "F32"
        entries[name] = {"dtype": code, "shape": list(tensor.shape), "data_offsets": [offset, offset + len(raw)]}
        offset, values = offset + len(raw), values + raw
    header = json.dumps(entries).encode()
    for image in (struct.pack("<Q", len(header)) + header + values, struct.pack("<Q", 2) + b"{}"):
        stored = ImageTensors(bytearray(image), "x")
        assert all(torch.equal(stored.read(name), tensors[name]) for name in stored)
        assert len(stored) in (0, 4)


def test_whatever_the_header_says_it_is_a_user_error_or_an_image(image):
    choose = random.Random(1)
    (length,) = struct.unpack_from("<Q", image)
    refused = 0
    for _ in range(300):
        changed = bytearray(image)
        for _ in range(choose.randint(1, 3)):
            changed[choose.randrange(8 + length)] ^= 1 << choose.randrange(8)
        try:
            stored = ImageTensors(changed, "x")
            for name in stored.weights():
                stored.read(name)
        except UserError:
            refused += 1
    assert refused > 200
