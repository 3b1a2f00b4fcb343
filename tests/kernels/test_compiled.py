"""Compiled loops against the forms in PyTorch, at awkward sizes, with one thread and with a team."""

import pytest
import torch

from arcforge.kernels import compiled, select
from arcforge.kernels.attention import naive as attention
from arcforge.kernels.attention.paged import paged_mqa
from arcforge.kernels.experts import compiled as experts
from arcforge.kernels.experts.naive import routed_experts
from arcforge.kernels.linear.compiled import linear
from arcforge.kernels.rms_norm.compiled import rms_norm


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def inference():
    with torch.inference_mode():
        yield


@pytest.fixture(params=[1, 2, 5])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def blocks(B: int, X: int, block: int, seed: int = 3):
    """A cache of more blocks than are used, and tables that share some of them."""
    tables = torch.randint(0, 11, (B, X), generator=torch.Generator().manual_seed(seed))
    return random(11 * block, 7, seed=seed), tables


@pytest.mark.parametrize(("B", "H", "rank"), [(1, 1, 1), (3, 3, 5), (8, 2, 7), (14, 5, 6)])
@pytest.mark.parametrize("block", [1, 4])
def test_paged_attention_is_that_over_gathered_keys(threads, B, H, rank, block):
    keys, tables = blocks(B, 9, block)
    generator = torch.Generator().manual_seed(B)
    last = torch.randint(0, 9 * block, (B,), generator=generator)
    first = (last * torch.rand(B, generator=generator)).long()
    q = random(B, H, 7, seed=1)
    found = paged_mqa(q, keys, tables, block, first, last, rank, 0.4)
    assert torch.allclose(found, attention.paged_mqa(q, keys, tables, block, first, last, rank, 0.4), atol=1e-5)


def test_keys_that_are_not_seen_may_be_anything(threads):
    keys, tables = blocks(2, 6, 1)
    tables[0, [1, 4]] = -1
    first, last = torch.tensor([0, 2]), torch.tensor([5, 3])
    q, seen = random(2, 3, 7, seed=1), {*tables[0].tolist(), *tables[1, 2:4].tolist()} - {-1}
    expected = attention.paged_mqa(q, keys, tables, 1, first, last, 5, 0.4)
    keys[[place for place in range(11) if place not in seen]] = float("nan")
    assert torch.allclose(paged_mqa(q, keys, tables, 1, first, last, 5, 0.4), expected, atol=1e-5)


def test_a_querys_result_does_not_depend_on_the_others():
    keys, tables = blocks(6, 5, 4)
    last, first, q = torch.arange(6) + 7, torch.zeros(6, dtype=torch.long), random(6, 3, 7)
    together = paged_mqa(q, keys, tables, 4, first, last, 6, 0.4)
    for b in range(6):
        one = slice(b, b + 1)
        assert torch.equal(paged_mqa(q[one], keys, tables[one], 4, first[one], last[one], 6, 0.4), together[one])


@pytest.mark.parametrize(
    ("N", "K", "E", "D", "I"), [(1, 1, 1, 1, 1), (1, 3, 8, 6, 5), (37, 2, 5, 7, 3), (9, 4, 4, 8, 8)]
)
def test_experts(threads, N, K, E, D, I):
    x, weights = random(N, D), random(N, K, seed=1).sigmoid()
    gate_up, down = random(E, 2 * I, D, seed=2), random(E, D, I, seed=3)
    generator = torch.Generator().manual_seed(4)
    chosen = torch.stack([torch.randperm(E, generator=generator)[:K] for _ in range(N)])
    found = experts.routed_experts(x, weights, chosen, gate_up, down)
    assert torch.allclose(found, routed_experts(x, weights, chosen, gate_up, down), atol=1e-4)


@pytest.mark.parametrize(("shape", "O"), [((1, 1), 1), ((3, 5), 7), ((2, 3, 33), 10), ((9, 64), 5)])
def test_linear(threads, shape, O):
    x, w = random(*shape), random(O, shape[-1], seed=1)
    assert torch.allclose(linear(x, w), torch.nn.functional.linear(x, w), atol=1e-5)
    assert torch.allclose(linear(x.transpose(0, -1).contiguous().transpose(0, -1), w), linear(x, w))


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (2, 3, 16)])
def test_norm(shape):
    x, weight = random(*shape), random(shape[-1], seed=1)
    expected = torch.nn.functional.rms_norm(x, shape[-1:], weight, 1e-5)
    assert torch.allclose(rms_norm(x, weight, 1e-5), expected, atol=1e-6)
    wide = random(*shape[:-1], 2 * shape[-1], seed=2)[..., ::2]
    assert torch.allclose(
        rms_norm(wide, weight, 1e-5), torch.nn.functional.rms_norm(wide, shape[-1:], weight, 1e-5), atol=1e-6
    )


def test_what_is_not_a_number_stays_so():
    x = random(3, 5)
    x[1, 2] = float("nan")
    assert rms_norm(x, torch.ones(5), 1e-5).isnan().any(-1).tolist() == [False, True, False]
    assert linear(x, random(4, 5)).isnan().all(-1).tolist() == [False, True, False]
    keys, tables = blocks(1, 2, 4)
    keys[tables[0, 0] * 4 + 1] = float("nan")
    seen = torch.zeros(1, dtype=torch.long), torch.tensor([5])
    assert paged_mqa(random(1, 2, 7), keys, tables, 4, *seen, 5, 0.4).isnan().all()


def test_gradients_other_types_and_many_rows_take_pytorchs_form():
    wide = random(1 << 10, 1 << 7)
    assert torch.equal(select.linear(random(64, 1 << 7), wide), torch.nn.functional.linear(random(64, 1 << 7), wide))
    half = random(2, 1 << 7).bfloat16()
    assert select.linear(half, wide.bfloat16()).dtype == torch.bfloat16
    with torch.inference_mode(False), torch.enable_grad():
        x = random(2, 1 << 7).requires_grad_()
        select.linear(x, wide.clone()).sum().backward()
        assert x.grad is not None
        select.rms_norm(x, torch.ones(1 << 7), 1e-5).sum().backward()


def test_without_a_folder_for_the_code_it_is_compiled_anew():
    def make(*signature, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: (function, signature, options)

    assert compiled._cached(make, "void()", nogil=True)(len) == (len, ("void()",), {"nogil": True})
