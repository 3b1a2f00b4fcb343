"""Teachers of on-policy cross-stage distillation (GLM-5 report, section 3.5): each scores the student's own tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from arcforge.core.tasks import Family
from arcforge.infer.engine import Engine
from arcforge.rl.losses import LossOutput, distillation
from arcforge.rl.samples import Batch


@dataclass
class Teacher:
    """An earlier stage's checkpoint and the family whose prompts it teaches."""

    name: str
    family: Family
    engine: Engine


def teacher_signal(teachers: Sequence[Teacher]) -> Callable[[Batch], np.ndarray]:
    """Log-probs of each sampled token under the teacher of its prompt, float32 [N, T].

    The loop draws prompts from the teachers' families in turn, so the number in a rollout's id names its teacher.
    """

    def signal(batch: Batch) -> np.ndarray:
        values: list[np.ndarray] = [np.zeros(0)] * len(batch.samples)
        for place, teacher in enumerate(teachers):
            mine = [i for i, s in enumerate(batch.samples) if _prompt_number(s.rollout_id) % len(teachers) == place]
            scores = teacher.engine.score([batch.samples[i].ids.tolist() for i in mine])
            for i, row in zip(mine, scores, strict=True):
                values[i] = np.array([0.0, *row], dtype=np.float32)
        return batch.scatter(values)

    return signal


def distillation_loss(
    train_BT: Tensor, rollout_BT: Tensor, teacher_BT: Tensor, mask_BT: Tensor, weights_BT: Tensor
) -> LossOutput:
    return distillation(train_BT, rollout_BT, teacher_BT, mask_BT, weights_BT=weights_BT)


def _prompt_number(rollout_id: str) -> int:
    return int(rollout_id.rsplit("-", 2)[1])
