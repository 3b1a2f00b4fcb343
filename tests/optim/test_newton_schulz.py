"""Orthogonalisation: singular values near 1, the singular vectors those of the input."""

import pytest
import torch

from arcforge.optim.newton_schulz import orthogonalise


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(32, 32), (24, 96), (96, 24), (7, 200), (200, 7), (1, 5)])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_singular_values_end_near_one(shape, scale):
    values = torch.linalg.svdvals(orthogonalise(random(1, *shape) * scale)[0])
    assert len(values) == min(shape)
    assert values.min() > 0.6 and values.max() < 1.25


@pytest.mark.parametrize("shape", [(24, 40), (40, 24)])
def test_the_result_points_where_the_polar_factor_points(shape):
    g = random(*shape)
    u, _, vh = torch.linalg.svd(g, full_matrices=False)
    rotated = u.T @ orthogonalise(g[None])[0] @ vh.T
    assert (rotated - torch.diag(rotated.diagonal())).abs().max() < 1e-3
    assert (rotated.diagonal() > 0.6).all()


def test_a_batch_is_its_matrices_one_by_one_whatever_their_sizes():
    batch = torch.stack([random(12, 20, seed=i) * 10.0**i for i in range(-2, 3)])
    together = orthogonalise(batch)
    for one, all_of_them in zip(batch, together, strict=True):
        assert torch.allclose(orthogonalise(one[None])[0], all_of_them, atol=1e-5)


def test_tall_is_the_transpose_of_wide_and_nothing_stays_nothing():
    g = random(3, 30, 10)
    assert torch.allclose(orthogonalise(g), orthogonalise(g.transpose(1, 2)).transpose(1, 2), atol=1e-5)
    assert torch.equal(orthogonalise(torch.zeros(2, 4, 6)), torch.zeros(2, 4, 6))
