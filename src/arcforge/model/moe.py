"""Mixture of experts: sigmoid router with a selection-only bias, routed experts, one shared expert. Legend: N tokens, E experts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arcforge.kernels.experts.naive import routed_experts_alone
from arcforge.kernels.row_tiles.naive import in_tiles
from arcforge.kernels.select import routed_experts
from arcforge.model.config import ModelConfig
from arcforge.model.layers import Alone, SwiGLU


class Router(Alone):
    """Chooses experts by sigmoid(score) + bias, weighs them by sigmoid(score) alone (aux-loss-free balancing)."""

    e_score_correction_bias: Tensor
    load: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.zeros(config.n_routed_experts, config.hidden_size))
        self.register_buffer("e_score_correction_bias", torch.zeros(config.n_routed_experts, dtype=torch.float32))
        self.register_buffer("load", torch.zeros(config.n_routed_experts, dtype=torch.float32), persistent=False)

    def forward(self, x_ND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Weights [N, K], expert ids [N, K] and all scores [N, E], float32."""
        c = self.config
        weight_ED = self.weight.float()
        if self.alone:
            scores_NE = in_tiles(x_ND.float(), lambda tile: F.linear(tile, weight_ED).sigmoid())
        else:
            scores_NE = F.linear(x_ND.float(), weight_ED).sigmoid()
        choice_NE = scores_NE.detach() + self.e_score_correction_bias
        if c.n_group > 1:
            choice_NE = self._keep_best_groups(choice_NE)
        experts_NK = choice_NE.topk(c.num_experts_per_tok, dim=-1).indices
        weights_NK = scores_NE.gather(1, experts_NK)
        if c.norm_topk_prob:
            weights_NK = weights_NK / (weights_NK.sum(-1, keepdim=True) + 1e-20)
        return weights_NK * c.routed_scaling_factor, experts_NK, scores_NE

    def _keep_best_groups(self, choice_NE: Tensor) -> Tensor:
        c, N = self.config, choice_NE.shape[0]
        grouped = choice_NE.view(N, c.n_group, -1)
        best = grouped.topk(2, dim=-1).values.sum(-1).topk(c.topk_group, dim=-1).indices
        keep = torch.zeros(N, c.n_group, dtype=torch.bool, device=choice_NE.device).scatter(1, best, True)
        return grouped.masked_fill(~keep.unsqueeze(-1), float("-inf")).view(N, -1)


class Experts(Alone):
    """All routed experts as two stacked tensors: gate_up_proj [E, 2I, D] and down_proj [E, D, I]."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        E, I, D = config.n_routed_experts, config.moe_intermediate_size, config.hidden_size
        self.gate_up_proj = nn.Parameter(torch.empty(E, 2 * I, D))
        self.down_proj = nn.Parameter(torch.empty(E, D, I))

    def forward(self, x_ND: Tensor, weights_NK: Tensor, experts_NK: Tensor) -> Tensor:
        run = routed_experts_alone if self.alone else routed_experts
        return run(x_ND, weights_NK, experts_NK, self.gate_up_proj, self.down_proj)


class MoE(nn.Module):
    """Routed plus shared experts; returns the output and, in training, the sequence-level balance loss."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = Router(config)
        self.experts = Experts(config)
        self.shared_experts = SwiGLU(config.hidden_size, config.moe_intermediate_size * config.n_shared_experts)

    def forward(self, x_BTD: Tensor) -> tuple[Tensor, Tensor | None]:
        x_ND = x_BTD.flatten(0, 1)
        weights_NK, experts_NK, scores_NE = self.gate(x_ND)
        out_BTD = self.experts(x_ND, weights_NK, experts_NK).view_as(x_BTD) + self.shared_experts(x_BTD)
        if not self.training:
            return out_BTD, None
        return out_BTD, self._balance(scores_NE, experts_NK, x_BTD.shape[0])

    def _balance(self, scores_NE: Tensor, experts_NK: Tensor, rows: int) -> Tensor:
        """sum_e f_e P_e per row, averaged (DeepSeek-V3 report, section 2.1.2); 1 when perfectly balanced."""
        E, K = scores_NE.shape[1], experts_NK.shape[1]
        chosen_NE = torch.zeros_like(scores_NE).scatter(1, experts_NK, 1.0)
        with torch.no_grad():
            self.gate.load += chosen_NE.sum(0)
        f_BE = chosen_NE.view(rows, -1, E).mean(1) * (E / K)
        p_BE = (scores_NE / scores_NE.sum(-1, keepdim=True)).view(rows, -1, E).mean(1)
        return (f_BE * p_BE).sum(-1).mean()
