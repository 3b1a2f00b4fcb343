"""Which implementation of an operator runs: the only place that chooses. Everything not named here has one."""

from __future__ import annotations

from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor

from arcforge.kernels.attention import naive as attention
from arcforge.kernels.delta_rule import naive as delta_rules
from arcforge.kernels.experts import naive as experts
from arcforge.kernels.rms_norm import naive as norms

COMPILED_PAIRS = 64
"""Most pairs of a token and an expert, per expert, for the compiled loop. Measured with models of 1M to 20M and two threads: 3 to 8
times as fast as PyTorch's products up to 8 pairs, 1.2 to 1.4 times at 64."""
COMPILED_ROWS, COMPILED_WEIGHTS = 32, 1 << 17
"""Most rows and fewest numbers of a matrix for the compiled product: about twice as fast as PyTorch's at 2 to 8 rows, even at 32,
and slower for small matrices, where calling it is what counts."""


def _compiled(*tensors: Tensor) -> bool:
    """Whether Numba's loops take these: inference in float32 on the CPU. They are imported when first needed: Numba takes half a
    second."""
    return not torch.is_grad_enabled() and all(x.dtype == torch.float32 and x.device.type == "cpu" for x in tensors)


def rms_norm(x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps), statistics of at least float32, cast to x's dtype and then times weight. x: [..., D]."""
    if _compiled(x, weight_D):
        from arcforge.kernels.rms_norm import compiled

        return compiled.rms_norm(x, weight_D, eps)
    return norms.rms_norm(x, weight_D, eps)


def linear(x: Tensor, w_OK: Tensor) -> Tensor:
    """x @ w.T for x [..., K], [..., O]."""
    if w_OK.numel() >= COMPILED_WEIGHTS and x.numel() <= COMPILED_ROWS * w_OK.shape[1] and _compiled(x, w_OK):
        from arcforge.kernels.linear import compiled

        return compiled.linear(x, w_OK)
    return F.linear(x, w_OK)


def routed_experts(
    x_ND: Tensor, weights_NK: Tensor, experts_NK: Tensor, gate_up_EID: Tensor, down_EDI: Tensor
) -> Tensor:
    """sum_k w[n, k] * down_e(silu(gate_e x) * up_e x), [N, D]; gate_up holds gate rows first, then up rows (2I rows)."""
    few = experts_NK.numel() <= COMPILED_PAIRS * len(down_EDI)
    if few and _compiled(x_ND, weights_NK, gate_up_EID, down_EDI):
        from arcforge.kernels.experts import compiled

        return compiled.routed_experts(x_ND, weights_NK, experts_NK, gate_up_EID, down_EDI)
    return experts.routed_experts(x_ND, weights_NK, experts_NK, gate_up_EID, down_EDI)


def paged_mqa(
    q_BHC: Tensor,
    keys_NC: Tensor,
    tables_BX: Tensor,
    block: int,
    first_B: Tensor,
    last_B: Tensor,
    rank: int,
    scale: float,
) -> Tensor:
    """Attended latents [B, H, R] of one query per row over blocks of a cache; the terms are those of `naive.paged_mqa`."""
    if _compiled(q_BHC, keys_NC):
        from arcforge.kernels.attention import paged

        return paged.paged_mqa(q_BHC, keys_NC, tables_BX, block, first_B, last_B, rank, scale)
    return attention.paged_mqa(q_BHC, keys_NC, tables_BX, block, first_B, last_B, rank, scale)


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
    return delta_rules.delta_rule(q_BTHK, k_BTHK, v_BTHV, log_decay_BTH, beta_BTH, documents_BT)[0]


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
