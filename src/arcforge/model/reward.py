"""A reward model: the trunk with a scalar head on the last token's hidden state."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from arcforge.model.trunk import GlmMoeDsa


class RewardModel(nn.Module):
    """score: hidden of the last real token -> one number (GLM-5 report, section 3.4: outcome reward model)."""

    def __init__(self, trunk: GlmMoeDsa) -> None:
        super().__init__()
        self.trunk = trunk
        self.score = nn.Linear(trunk.config.hidden_size, 1, bias=False)
        nn.init.zeros_(self.score.weight)

    def forward(self, ids_BT: Tensor, lengths_B: Tensor) -> Tensor:
        """ids: right-padded int64 [B, T]; returns scores float32 [B]."""
        places_T = torch.arange(ids_BT.shape[1], device=ids_BT.device)
        documents_BT = (places_T >= lengths_B[:, None]).long()
        hidden_BTD = self.trunk(ids_BT, self.trunk.layout(documents_BT, sparse=True)).hidden_BTD
        last_BD = hidden_BTD[torch.arange(len(ids_BT), device=ids_BT.device), lengths_B - 1]
        return self.score(last_BD).squeeze(-1).float()
