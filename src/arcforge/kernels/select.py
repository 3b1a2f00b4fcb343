"""Which implementation of an operator runs: the only place that chooses. Everything not named here has one."""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import Tensor

from arcforge.kernels.delta_rule import naive


def delta_rule(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    log_decay_BTH: Tensor,
    beta_BTH: Tensor,
    documents_BT: Tensor | None = None,
) -> Tensor:
    """The gated delta rule over whole rows, outputs [B, T, H, V]: flash-linear-attention's kernels on a GPU where that package
    is installed, else the chunked form in plain PyTorch."""
    if q_BTHK.is_cuda and find_spec("fla") is not None:
        return _flash_linear_attention(q_BTHK, k_BTHK, v_BTHV, log_decay_BTH, beta_BTH, documents_BT)
    return naive.delta_rule(q_BTHK, k_BTHK, v_BTHV, log_decay_BTH, beta_BTH, documents_BT)[0]


def _flash_linear_attention(
    q_BTHK: Tensor, k_BTHK: Tensor, v_BTHV: Tensor, log_decay_BTH: Tensor, beta_BTH: Tensor, documents_BT: Tensor | None
) -> Tensor:
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule  # pyright: ignore[reportMissingImports]

    rows, length = q_BTHK.shape[:2]
    starts = document_starts(documents_BT, rows, length, q_BTHK.device)
    q, k, v, decay, beta = (x.flatten(0, 1).unsqueeze(0) for x in (q_BTHK, k_BTHK, v_BTHV, log_decay_BTH, beta_BTH))
    out, _ = chunk_gated_delta_rule(q=q, k=k, v=v, g=decay, beta=beta, scale=1.0, cu_seqlens=starts)
    return out.view(v_BTHV.shape)


def document_starts(documents_BT: Tensor | None, rows: int, length: int, device: torch.device) -> Tensor:
    """int64 [documents + 1]: where each document of the rows, laid end to end, begins, and the end of the last. A document is
    a run of equal ids in one row."""
    if documents_BT is None:
        return torch.arange(0, rows * length + 1, length, device=device)
    begins_BT = torch.ones_like(documents_BT, dtype=torch.bool)
    begins_BT[:, 1:] = documents_BT[:, 1:] != documents_BT[:, :-1]
    return torch.cat((begins_BT.flatten().nonzero().squeeze(1), torch.tensor([rows * length], device=device)))
