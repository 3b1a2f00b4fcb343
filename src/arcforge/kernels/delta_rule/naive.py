"""The gated delta rule, token by token and in chunks. Legend: B rows, T tokens, H heads, K key dims, V value dims, C chunk, N chunks.

The maths is in README.md beside this file (Gated DeltaNet, arXiv 2412.06464; GLM-5 report, section 2.1.2).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 64


def delta_rule_by_token(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    log_decay_BTH: Tensor,
    beta_BTH: Tensor,
    documents_BT: Tensor | None = None,
    state_BHKV: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """S_t = a_t (I - b_t k_t k_t^T) S_(t-1) + b_t k_t v_t^T;  o_t = S_t^T q_t.  The definition, and the form of decoding.

    log_decay: log a_t <= 0. documents: the state is emptied where a new document begins. Returns outputs [B, T, H, V] and
    the last state [B, H, K, V].
    """
    B, T, H, K = q_BTHK.shape
    state = q_BTHK.new_zeros(B, H, K, v_BTHV.shape[-1]) if state_BHKV is None else state_BHKV
    outputs = []
    for t in range(T):
        if documents_BT is not None and t:
            state = state * (documents_BT[:, t] == documents_BT[:, t - 1])[:, None, None, None]
        k, beta = k_BTHK[:, t], beta_BTH[:, t, :, None]
        state = state * log_decay_BTH[:, t].exp()[..., None, None]
        known = torch.einsum("bhkv,bhk->bhv", state, k)
        state = state + torch.einsum("bhk,bhv->bhkv", k, beta * (v_BTHV[:, t] - known))
        outputs.append(torch.einsum("bhkv,bhk->bhv", state, q_BTHK[:, t]))
    return torch.stack(outputs, 1), state


def delta_rule(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    log_decay_BTH: Tensor,
    beta_BTH: Tensor,
    documents_BT: Tensor | None = None,
    state_BHKV: Tensor | None = None,
    chunk: int = CHUNK,
) -> tuple[Tensor, Tensor]:
    """The same in chunks: matrix products inside a chunk, one step of the state per chunk; the form of training."""
    B, T, H, K = q_BTHK.shape
    V, spare = v_BTHV.shape[-1], -T % chunk
    q, k, v = (_chunked(x, spare, chunk) for x in (q_BTHK, k_BTHK, v_BTHV))
    # Padding tokens have b = 0 and no decay, so they change no state.
    beta, decay = (_chunked(x.unsqueeze(-1), spare, chunk).squeeze(-1) for x in (beta_BTH, log_decay_BTH))
    reach_BHNC = decay.cumsum(-1)
    same_BNCC, first_BNC, last_BNC = _document_masks(documents_BT, B, T, spare, chunk, q.device)
    between = (
        (reach_BHNC.unsqueeze(-1) - reach_BHNC.unsqueeze(-2))
        .masked_fill(~same_BNCC[:, None].tril(), float("-inf"))
        .exp()
    )
    from_state_BHNC1 = (reach_BHNC.exp() * first_BNC[:, None]).unsqueeze(-1)
    products = (k @ k.transpose(-1, -2)) * between * beta.unsqueeze(-1)
    lower = products.tril(-1) + torch.eye(chunk, dtype=q.dtype, device=q.device)
    both = torch.cat((v, from_state_BHNC1 * k), -1) * beta.unsqueeze(-1)
    solved = torch.linalg.solve_triangular(lower, both, upper=False, unitriangular=True)
    own_BHNCV, read_BHNCK = solved.split((V, K), -1)
    inside = (q @ k.transpose(-1, -2)) * between
    to_end_BHNC1 = ((reach_BHNC[..., -1:] - reach_BHNC).exp() * last_BNC[:, None]).unsqueeze(-1)
    carried_BHN = reach_BHNC[..., -1].exp() * (first_BNC[:, None, :, -1])
    state = q_BTHK.new_zeros(B, H, K, V) if state_BHKV is None else state_BHKV
    outputs = []
    for n in range(q.shape[2]):
        written = own_BHNCV[:, :, n] - read_BHNCK[:, :, n] @ state
        outputs.append((q[:, :, n] * from_state_BHNC1[:, :, n]) @ state + inside[:, :, n] @ written)
        state = (
            state * carried_BHN[:, :, n, None, None] + (k[:, :, n] * to_end_BHNC1[:, :, n]).transpose(-1, -2) @ written
        )
    out = torch.stack(outputs, 2).flatten(2, 3).transpose(1, 2)
    return out[:, :T], state


def _chunked(x_BTHX: Tensor, spare: int, chunk: int) -> Tensor:
    """[B, T, H, X] -> [B, H, N, C, X], zeros at the end."""
    padded = F.pad(x_BTHX, (0, 0, 0, 0, 0, spare))
    return padded.transpose(1, 2).unflatten(2, (-1, chunk))


def _document_masks(
    documents_BT: Tensor | None, B: int, T: int, spare: int, chunk: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Per chunk: pairs of one document [B, N, C, C]; tokens whose document reaches back before the chunk [B, N, C] and
    forward to its end [B, N, C]. A document is a run of equal ids."""
    if documents_BT is None:
        runs_BT = torch.zeros(B, T, dtype=torch.long, device=device)
    else:
        changed = F.pad(documents_BT[:, 1:] != documents_BT[:, :-1], (1, 0))
        runs_BT = changed.long().cumsum(1)
    runs_BNC = torch.cat((runs_BT, runs_BT[:, -1:].expand(-1, spare)), 1).unflatten(1, (-1, chunk))
    before_BN1 = F.pad(runs_BNC[:, :-1, -1], (1, 0), value=0).unsqueeze(-1)
    same_BNCC = runs_BNC.unsqueeze(-1) == runs_BNC.unsqueeze(-2)
    return same_BNCC, runs_BNC == before_BN1, runs_BNC == runs_BNC[..., -1:]
