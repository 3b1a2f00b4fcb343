"""Policy losses of other work, in the form of `losses`, to compare GLM-5's with. All need pi_old (`losses.check_loss`).

Shapes as in `losses`: B rows, T token positions, everything float32 [B, T] and aligned to the token it is about.
Arguments that all of them share:

    train_BT       log pi_theta, with gradient
    rollout_BT     log-probs that the engine sampled with
    advantages_BT  float32, broadcast over T
    mask_BT        bool, tokens the loss may touch
    old_BT         log pi_old of the training engine; None = train_BT detached, true at the only update of a batch
    weights_BT     token weights of a whole step, in place of `reduction`

The ratio that `LossOutput` reports is pi_theta / pi_rollout in all of them, whatever ratio the loss itself works with.
"""

from __future__ import annotations

import torch
from torch import Tensor

from arcforge.rl.losses import (
    LossOutput,
    Reduction,
    clipped_away,
    clipped_objective,
    cut_shares,
    importance_ratio,
    masked_mean,
    reduce_objective,
    token_weights,
)


def ppo_clip(
    train_BT: Tensor,
    rollout_BT: Tensor,
    advantages_BT: Tensor,
    mask_BT: Tensor,
    *,
    old_BT: Tensor | None = None,
    eps_low: float = 0.2,
    eps_high: float = 0.2,
    reduction: Reduction = "sample_mean",
    weights_BT: Tensor | None = None,
) -> LossOutput:
    """PPO's clipped surrogate (Schulman et al., arXiv 1707.06347, Eq. 7), in GRPO's mean over samples.

        -1/G sum_i 1/|y_i| sum_t min(r A, clip(r, 1 - eps_low, 1 + eps_high) A),   r = pi_theta / pi_old

    Needs pi_old, of the training engine. It does not see that the rollout engine computes slightly other
    probabilities: rollout_BT serves the metrics only.
    """
    r_BT = _old_ratio(train_BT, old_BT, mask_BT)
    loss = reduce_objective(clipped_objective(r_BT, advantages_BT, eps_low, eps_high), mask_BT, reduction, weights_BT)
    cut_BT = clipped_away(r_BT.detach(), advantages_BT, eps_low, eps_high)
    return _output(loss, train_BT, rollout_BT, mask_BT, r_BT, cut_BT)


def tis(
    train_BT: Tensor,
    rollout_BT: Tensor,
    advantages_BT: Tensor,
    mask_BT: Tensor,
    *,
    old_BT: Tensor | None = None,
    cap: float = 2.0,
    eps_low: float = 0.2,
    eps_high: float = 0.28,
    reduction: Reduction = "sample_mean",
    weights_BT: Tensor | None = None,
) -> LossOutput:
    """Truncated importance sampling (Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL
    training"): PPO's surrogate times the engines' mismatch, truncated above.

        -1/G sum_i 1/|y_i| sum_t min(rho, cap) min(r A, clip(r, 1 - eps_low, 1 + eps_high) A)
        rho = pi_old / pi_rollout,  r = pi_theta / pi_old

    Needs pi_old, of the training engine, beside the rollout's log-probs. Where IcePop drops a token, this keeps it with
    the weight `cap`, and a small rho stays small instead of 0.
    """
    old_BT = train_BT.detach() if old_BT is None else old_BT.detach()
    rho_BT = importance_ratio(old_BT, rollout_BT.detach(), mask_BT)
    r_BT = importance_ratio(train_BT, old_BT, mask_BT)
    objective_BT = rho_BT.clamp(max=cap) * clipped_objective(r_BT, advantages_BT, eps_low, eps_high)
    loss = reduce_objective(objective_BT, mask_BT, reduction, weights_BT)
    cut_BT = clipped_away(r_BT.detach(), advantages_BT, eps_low, eps_high)
    output = _output(loss, train_BT, rollout_BT, mask_BT, r_BT, cut_BT)
    output.metrics["truncated_share"] = masked_mean((rho_BT > cap).float(), mask_BT)
    return output


def gspo(
    train_BT: Tensor,
    rollout_BT: Tensor,
    advantages_BT: Tensor,
    mask_BT: Tensor,
    segments_BT: Tensor,
    *,
    old_BT: Tensor | None = None,
    eps_low: float = 3e-4,
    eps_high: float = 4e-4,
    weights_BT: Tensor | None = None,
) -> LossOutput:
    """Group sequence policy optimisation (Zheng et al., arXiv 2507.18071, Eqs. 5 and 7): one ratio per sample.

        -1/G sum_i min(s_i A_i, clip(s_i, 1 - eps_low, 1 + eps_high) A_i)
        s_i = (pi_theta(y_i) / pi_old(y_i))^(1/|y_i|) = exp(1/|y_i| sum_t log(pi_theta / pi_old))

    segments_BT: int [B, T], the sample of each token, equal numbers for the same sample in whichever row; rows hold
    several, and a sample must not be split over two calls. advantages_BT: constant over a sample. weights_BT: constant
    over a sample too; default 1/G 1/|y_i|. Needs pi_old, of the training engine; rollout_BT serves the metrics only.
    """
    old_BT = train_BT.detach() if old_BT is None else old_BT.detach()
    s_BT = _sample_ratio(torch.where(mask_BT, train_BT - old_BT, 0.0), mask_BT, segments_BT)
    weights_BT = token_weights(mask_BT, "sample_mean", segments_BT) if weights_BT is None else weights_BT
    # Outside the mask s still belongs to the sample: what stands there must not reach its gradient.
    advantages_BT = torch.where(mask_BT, advantages_BT, 0.0)
    objective_BT = clipped_objective(s_BT, advantages_BT, eps_low, eps_high)
    loss = reduce_objective(objective_BT, mask_BT, "sample_mean", weights_BT)
    cut_BT = clipped_away(s_BT.detach(), advantages_BT, eps_low, eps_high)
    return _output(loss, train_BT, rollout_BT, mask_BT, s_BT, cut_BT)


def cispo(
    train_BT: Tensor,
    rollout_BT: Tensor,
    advantages_BT: Tensor,
    mask_BT: Tensor,
    *,
    old_BT: Tensor | None = None,
    eps_low: float = 1.0,
    eps_high: float = 4.0,
    reduction: Reduction = "token_mean",
    weights_BT: Tensor | None = None,
) -> LossOutput:
    """Clipped importance-sampling weights (MiniMax-M1, arXiv 2506.13585, Eqs. 4 and 5): every token keeps a gradient.

        -E_t[ sg(clip(r, 1 - eps_low, 1 + eps_high)) A log pi_theta ],   r = pi_theta / pi_old

    Needs pi_old in this, its usual form. Where `losses.double_sided` gives a far-off token no gradient, this gives it the
    limit's weight. eps_low = 1 sets no lower limit, as in M1, which prints no upper one; 5 is what ScaleRL
    (arXiv 2510.13786) uses.
    """
    r_BT = _old_ratio(train_BT, old_BT, mask_BT).detach()
    weight_BT = r_BT.clamp(1 - eps_low, 1 + eps_high)
    objective_BT = weight_BT * advantages_BT * torch.where(mask_BT, train_BT, 0.0)
    loss = reduce_objective(objective_BT, mask_BT, reduction, weights_BT)
    output = _output(loss, train_BT, rollout_BT, mask_BT, r_BT, torch.zeros_like(mask_BT))
    output.metrics["truncated_share"] = masked_mean((r_BT != weight_BT).float(), mask_BT)
    return output


def _old_ratio(train_BT: Tensor, old_BT: Tensor | None, mask_BT: Tensor) -> Tensor:
    """pi_theta / pi_old, with gradient."""
    return importance_ratio(train_BT, train_BT.detach() if old_BT is None else old_BT.detach(), mask_BT)


def _sample_ratio(log_ratio_BT: Tensor, mask_BT: Tensor, segments_BT: Tensor) -> Tensor:
    """exp of the mean log-ratio of each position's sample, [B, T]; log_ratio_BT is 0 outside the mask."""
    _, index_BT = torch.unique(segments_BT, return_inverse=True)
    zeros_S = torch.zeros(int(index_BT.max()) + 1, device=mask_BT.device)
    lengths_S = zeros_S.index_add(0, index_BT.flatten(), mask_BT.flatten().float())
    sums_S = zeros_S.index_add(0, index_BT.flatten(), log_ratio_BT.flatten().float())
    return (sums_S / lengths_S.clamp(min=1)).exp()[index_BT]


def _output(
    loss: Tensor, train_BT: Tensor, rollout_BT: Tensor, mask_BT: Tensor, own_BT: Tensor, cut_BT: Tensor
) -> LossOutput:
    """own_BT: the ratio that the loss clips; its side of 1 is the side of the cut."""
    ratio_BT = importance_ratio(train_BT.detach(), rollout_BT.detach(), mask_BT)
    low_BT = cut_BT & (own_BT.detach() < 1)
    metrics = cut_shares(mask_BT, low_BT=low_BT, high_BT=cut_BT & ~low_BT)
    return LossOutput(loss, metrics, ratio_BT, mask_BT & ~cut_BT)
