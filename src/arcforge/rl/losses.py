"""Policy losses of GLM-5, as pure functions from log-probabilities to a loss (float32, no device choice, no logging).

Shapes: B rows, T token positions. A row may hold several packed samples; `weights_BT` then carries the means. Every
tensor is aligned to the token it is about: `train_BT[b, t]` is log pi_theta of token t given the tokens before it.

    grpo_icepop    reasoning RL, GLM-5 report, section 3.2, Eq. 1 (on-policy; KL term removed)
    double_sided   asynchronous agentic RL, section 4.1.2, Eqs. 3-5 (no old policy)
    distillation   cross-stage on-policy distillation, section 3.5, Eq. 2 inside the form of Eq. 1

What they are compared with stands in `baselines`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from arcforge.core.errors import UserError

Reduction = Literal["sample_mean", "token_mean"]
LossName = Literal["grpo_icepop", "double_sided", "distillation", "ppo_clip", "tis", "gspo", "cispo"]

NEEDS_OLD_POLICY: dict[LossName, bool] = {
    "grpo_icepop": True,
    "double_sided": False,
    "distillation": True,
    "ppo_clip": True,
    "tis": True,
    "gspo": True,
    "cispo": True,
}

# exp() of a larger log-ratio says nothing more than "far outside every clip range" and would overflow the statistics.
MAX_LOG_RATIO = 20.0


@dataclass(frozen=True)
class LossOutput:
    """loss: scalar float32 to minimise. metrics: detached scalars over masked positions.

    ratio_BT: detached importance ratio pi_train / pi_rollout (1 outside the mask). kept_BT: positions inside the mask
    whose gradient survived the loss's cut.
    """

    loss: Tensor
    metrics: dict[str, Tensor]
    ratio_BT: Tensor
    kept_BT: Tensor


def check_loss(name: LossName, asynchronous: bool) -> None:
    """UserError when a loss that needs pi_old is asked for while rollouts and training overlap.

    An asynchronous trajectory mixes tokens of several past policies whose weights no longer exist, so pi_old cannot be
    computed; the current policy in its place makes every ratio 1 and silently switches the clip off (GLM-5 report,
    section 4.1.2).
    """
    if name not in NEEDS_OLD_POLICY:
        raise UserError(f"loss {name!r} is unknown; choose one of {', '.join(NEEDS_OLD_POLICY)}")
    if asynchronous and NEEDS_OLD_POLICY[name]:
        raise UserError(
            f"loss {name!r} needs the old policy's log-probs, and the weights that sampled an asynchronous rollout are"
            " several and gone; use double_sided, or make the stage synchronous"
        )


def token_weights(mask_BT: Tensor, reduction: Reduction, sample_ids_BT: Tensor | None = None) -> Tensor:
    """Float32 weights [B, T] that sum to 1 over the mask (0 everywhere when the mask is empty).

    sample_mean: 1/G sum_i 1/|y_i| sum_t, |y_i| = masked tokens of sample i. token_mean: every masked token alike.
    sample_ids_BT: which sample a position belongs to (packed rows); default: each row is one sample.
    """
    mask = mask_BT.float()
    if reduction == "token_mean":
        return mask / mask.sum().clamp(min=1)
    if sample_ids_BT is None:
        sample_ids_BT = torch.arange(mask.shape[0], device=mask.device)[:, None].expand_as(mask)
    _, index_BT = torch.unique(sample_ids_BT, return_inverse=True)
    lengths_S = torch.zeros(int(index_BT.max()) + 1, device=mask.device).scatter_add_(
        0, index_BT.flatten(), mask.flatten()
    )
    samples = (lengths_S > 0).sum().clamp(min=1)
    return mask / lengths_S[index_BT].clamp(min=1) / samples


def grpo_icepop(
    train_BT: Tensor,
    rollout_BT: Tensor,
    advantages_BT: Tensor,
    mask_BT: Tensor,
    *,
    old_BT: Tensor | None = None,
    beta: float = 2.0,
    eps_low: float = 0.2,
    eps_high: float = 0.28,
    reduction: Reduction = "sample_mean",
    weights_BT: Tensor | None = None,
) -> LossOutput:
    """GLM-5 report, section 3.2, Eq. 1: group-relative policy loss with the IcePop mask on the train/rollout mismatch.

        -1/G sum_i 1/|y_i| sum_t pop(rho; 1/beta, beta) * min(r A, clip(r, 1 - eps_low, 1 + eps_high) A)
        rho = pi_old_train / pi_rollout,  r = pi_theta / pi_old_train,  pop(x) = x inside [1/beta, beta], else 0

    train_BT: log pi_theta, with gradient. rollout_BT: log-probs the engine sampled with. old_BT: log pi_old of the
    training engine; None = train_BT detached (one update per batch, "fully on-policy"). advantages_BT: float, broadcast
    over T. Popped tokens stay in the denominators. `weights_BT` replaces `reduction`: token weights of a whole step,
    so that the losses of its micro-batches add up.
    """
    old_BT = train_BT.detach() if old_BT is None else old_BT.detach()
    rho_BT = importance_ratio(old_BT, rollout_BT.detach(), mask_BT)
    inside_BT = (rho_BT >= 1 / beta) & (rho_BT <= beta)
    pop_BT = torch.where(inside_BT, rho_BT, 0.0)
    r_BT = importance_ratio(train_BT, old_BT, mask_BT)
    objective_BT = pop_BT * clipped_objective(r_BT, advantages_BT, eps_low, eps_high)
    loss = reduce_objective(objective_BT, mask_BT, reduction, weights_BT)
    with torch.no_grad():
        metrics = cut_shares(mask_BT, low_BT=rho_BT < 1 / beta, high_BT=rho_BT > beta)
        cut_BT = clipped_away(r_BT, advantages_BT, eps_low, eps_high)
        metrics["clip_ppo_share"] = masked_mean(cut_BT.float(), mask_BT)
    return LossOutput(loss, metrics, rho_BT, inside_BT & ~cut_BT & mask_BT)


def double_sided(
    train_BT: Tensor,
    rollout_BT: Tensor,
    advantages_BT: Tensor,
    mask_BT: Tensor,
    *,
    eps_low: float = 0.8,
    eps_high: float = 3.0,
    reduction: Reduction = "token_mean",
    weights_BT: Tensor | None = None,
) -> LossOutput:
    """GLM-5 report, section 4.1.2, Eqs. 3-5: direct double-sided importance sampling for asynchronous RL.

        -E_t[ sg(f(r_t)) * A_t * log pi_theta(a_t) ],  r_t = pi_theta / pi_rollout,
        f(x) = x if 1 - eps_low < x < 1 + eps_high else 0   (both ends strict, whatever the sign of A)

    No old policy, no extra forward pass: the rollout's own log-probs are the behaviour policy. f carries no gradient,
    so in-range tokens get A * r * grad log pi. Masked-out tokens stay in the denominators. The report does not print
    the epsilons; the defaults keep ratios in (0.2, 4).
    """
    ratio_BT = importance_ratio(train_BT.detach(), rollout_BT.detach(), mask_BT)
    low_BT, high_BT = ratio_BT <= 1 - eps_low, ratio_BT >= 1 + eps_high
    kept_BT = mask_BT & ~low_BT & ~high_BT
    f_BT = torch.where(kept_BT, ratio_BT, 0.0)
    objective_BT = f_BT * advantages_BT * torch.where(mask_BT, train_BT, 0.0)
    loss = reduce_objective(objective_BT, mask_BT, reduction, weights_BT)
    return LossOutput(loss, cut_shares(mask_BT, low_BT=low_BT, high_BT=high_BT), ratio_BT, kept_BT)


def distillation(
    train_BT: Tensor,
    rollout_BT: Tensor,
    teacher_BT: Tensor,
    mask_BT: Tensor,
    *,
    old_BT: Tensor | None = None,
    beta: float = 2.0,
    eps_low: float = 0.2,
    eps_high: float = 0.28,
    reduction: Reduction = "sample_mean",
    weights_BT: Tensor | None = None,
) -> LossOutput:
    """GLM-5 report, section 3.5, Eq. 2: on-policy cross-stage distillation with group size 1.

    The advantage of Eq. 1 becomes sg[log pi_teacher - log pi_theta] of the sampled token (a reverse-KL estimate);
    everything else of Eq. 1 stays. teacher_BT: the teacher's log-probs of the student's own tokens.
    """
    advantages_BT = (teacher_BT - train_BT).detach()
    output = grpo_icepop(
        train_BT,
        rollout_BT,
        torch.where(mask_BT, advantages_BT, 0.0),
        mask_BT,
        old_BT=old_BT,
        beta=beta,
        eps_low=eps_low,
        eps_high=eps_high,
        reduction=reduction,
        weights_BT=weights_BT,
    )
    output.metrics["reverse_kl"] = masked_mean(-advantages_BT, mask_BT)
    return output


def together(outputs: Sequence[LossOutput], masks: Sequence[Tensor]) -> LossOutput:
    """One output of several, each of tokens of its own. masks: bool [B, T] of each, disjoint.

    Losses add up, since every token's weight is its part of the whole step. Shares are of all tokens: where a loss does not
    tell one, none of its tokens counts.
    """
    if len(outputs) == 1:
        return outputs[0]
    total = sum(mask.sum() for mask in masks)
    metrics: dict[str, Tensor] = {}
    for output, mask in zip(outputs, masks, strict=True):
        for name, value in output.metrics.items():
            metrics[name] = metrics.get(name, torch.zeros_like(value)) + value * mask.sum() / total
    return LossOutput(
        loss=torch.stack([output.loss for output in outputs]).sum(),
        metrics=metrics,
        ratio_BT=torch.stack([output.ratio_BT for output in outputs]).prod(0),  # 1 outside each mask
        kept_BT=torch.stack([output.kept_BT for output in outputs]).any(0),
    )


def clipped_objective(ratio_BT: Tensor, advantages_BT: Tensor, eps_low: float, eps_high: float) -> Tensor:
    """min(r A, clip(r, 1 - eps_low, 1 + eps_high) A), per token."""
    clipped_BT = ratio_BT.clamp(1 - eps_low, 1 + eps_high)
    return torch.minimum(ratio_BT * advantages_BT, clipped_BT * advantages_BT)


def clipped_away(ratio_BT: Tensor, advantages_BT: Tensor, eps_low: float, eps_high: float) -> Tensor:
    """Where `clipped_objective` has no gradient: the ratio is beyond the end that its advantage pushes it to."""
    return ((ratio_BT < 1 - eps_low) & (advantages_BT < 0)) | ((ratio_BT > 1 + eps_high) & (advantages_BT > 0))


def importance_ratio(numerator_BT: Tensor, denominator_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """exp(numerator - denominator), float32 [B, T]; 1 outside the mask. Gradients flow through what carries one."""
    log_ratio_BT = torch.where(mask_BT, numerator_BT.float() - denominator_BT.float(), 0.0)
    return log_ratio_BT.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def reduce_objective(objective_BT: Tensor, mask_BT: Tensor, reduction: Reduction, weights_BT: Tensor | None) -> Tensor:
    """The loss: minus the weighted sum of the objective over the mask; `weights_BT` goes before `reduction`."""
    weights_BT = token_weights(mask_BT, reduction) if weights_BT is None else weights_BT
    return -(weights_BT * torch.where(mask_BT, objective_BT, 0.0)).sum()


def masked_mean(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    return torch.where(mask_BT, values_BT, 0.0).sum() / mask_BT.sum().clamp(min=1)


def cut_shares(mask_BT: Tensor, low_BT: Tensor, high_BT: Tensor) -> dict[str, Tensor]:
    """Shares of masked positions whose ratio the loss cut on the low and on the high side."""
    sides = {"clip_low_share": low_BT, "clip_high_share": high_BT}
    return {name: masked_mean(side_BT.float(), mask_BT) for name, side_BT in sides.items()}
