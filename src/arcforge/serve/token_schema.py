"""Bodies of the token API, in SGLang's shape and in vLLM's, and what they ask of the engine.

Options that would change the answer but are not implemented are refused, never passed over in silence.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from arcforge.core.errors import UserError
from arcforge.core.messages import Sampling

MOST_TOKENS = 1 << 20
MOST_TOP_LOGPROBS = 64
MOST_CHOICES = 128

Ids = Annotated[list[int], Field(min_length=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


def neutral(*values: Any) -> BeforeValidator:
    """Only these values, which change nothing."""

    def check(value: Any) -> Any:
        if value not in values or isinstance(value, bool) != isinstance(values[0], bool):
            raise ValueError("not supported here; leave it out")
        return value

    return BeforeValidator(check)


class Body(BaseModel):
    """JSON types are taken as they are: "1" is no number. Fields that nobody knows are left alone."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="ignore")


class Exact(Body):
    """Unknown keys are refused."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="forbid")


class SamplingFields(Exact):
    """What both shapes call the same."""

    temperature: float = Field(1.0, ge=0, le=100)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(-1, ge=-1, description="-1 and 0: all ids")
    min_p: float = Field(0.0, ge=0, le=1)
    seed: Seed | None = Field(None, description="without one, every request gets a fresh one")
    n: int = Field(1, ge=1, le=MOST_CHOICES)
    logit_bias: dict[str, float] | None = None
    ignore_eos: bool = False
    presence_penalty: Annotated[float, neutral(0, None)] = 0.0
    frequency_penalty: Annotated[float, neutral(0, None)] = 0.0
    repetition_penalty: Annotated[float, neutral(1, None)] = 1.0
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: bool | None = None

    def common(self) -> dict[str, Any]:
        """The fields of a `Sampling` that need no more than these."""
        return {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": max(self.top_k, 0),
            "min_p": self.min_p,
            "seed": fresh(self.seed),
            "logit_bias": biases(self.logit_bias),
        }


class SglangSampling(SamplingFields):
    """`sampling_params` of /generate. Without stop_token_ids the model's own end-of-turn ids stop it; [] means none."""

    max_new_tokens: int = Field(256, ge=0, le=MOST_TOKENS, description="0: only read the prompt")
    stop_token_ids: list[int] | None = None
    sampling_seed: Seed | None = None
    no_stop_trim: bool | None = None
    min_new_tokens: Annotated[int, neutral(0, None)] = 0


class GenerateBody(Body):
    """POST /generate, SGLang's names."""

    input_ids: Ids
    sampling_params: SglangSampling = Field(default_factory=lambda: SglangSampling.model_validate({}))
    rid: str = ""
    return_logprob: bool = True
    logprob_start_len: int = Field(
        -1, ge=-1, description="0 or more: also tell the prompt's log-probabilities from there"
    )
    top_logprobs_num: int = Field(0, ge=0, le=MOST_TOP_LOGPROBS)
    return_routed_experts: bool = False
    return_indexer_topk: bool = False
    cache_salt: str = ""
    stream: bool = False
    text: Annotated[Any, neutral(None)] = None

    def sampling(self, stop_ids: Sequence[int]) -> Sampling:
        params = self.sampling_params
        stops = stop_ids if params.stop_token_ids is None else params.stop_token_ids
        seed = params.seed if params.sampling_seed is None else params.sampling_seed
        return Sampling(
            **{**params.common(), "seed": fresh(seed)},
            max_tokens=params.max_new_tokens,
            stop_ids=() if params.ignore_eos else tuple(stops),
            top_logprobs=self.top_logprobs_num,
            prompt_logprobs=self.logprob_start_len >= 0,
            replay=self.return_routed_experts or self.return_indexer_topk,
            cache_salt=self.cache_salt,
        )


class VllmSampling(SamplingFields):
    """`sampling_params` of /inference/v1/generate. The model's end-of-turn ids always stop it, but for ignore_eos."""

    max_tokens: int = Field(16, ge=0, le=MOST_TOKENS, description="0: only read the prompt")
    stop_token_ids: list[int] = []
    logprobs: int | None = Field(None, ge=0, le=MOST_TOP_LOGPROBS)
    prompt_logprobs: int | None = Field(None, ge=0, le=0, description="0: of the prompt's own ids")
    min_tokens: Annotated[int, neutral(0, None)] = 0
    detokenize: bool | None = None
    include_stop_str_in_output: bool | None = None
    output_kind: Any = None


class VllmGenerateBody(Body):
    """POST /inference/v1/generate, vLLM's names."""

    token_ids: Ids
    sampling_params: VllmSampling = Field(default_factory=lambda: VllmSampling.model_validate({}))
    request_id: str = ""
    model: str | None = None
    stream: bool | None = False
    cache_salt: str | None = Field(None, min_length=1, max_length=1024)
    priority: int = 0
    return_token_ids: bool | None = None
    return_routed_experts: bool = False
    return_indexer_topk: bool = False
    output_mode: Literal["tokens"] = "tokens"

    def sampling(self, stop_ids: Sequence[int]) -> Sampling:
        params = self.sampling_params
        return Sampling(
            **params.common(),
            max_tokens=params.max_tokens,
            stop_ids=(*(() if params.ignore_eos else stop_ids), *params.stop_token_ids),
            top_logprobs=max(params.logprobs or 0, 0),
            prompt_logprobs=params.prompt_logprobs is not None,
            replay=self.return_routed_experts or self.return_indexer_topk,
            cache_salt=self.cache_salt or "",
        )


class ScoreBody(Body):
    """POST /score: one of the two."""

    input_ids: list[int] | None = None
    batch: list[list[int]] | None = None


class RewardBody(Body):
    """POST /reward."""

    ids: list[list[int]]


def fresh(seed: int | None) -> int:
    return secrets.randbits(31) if seed is None else seed


def biases(given: dict[str, float] | None) -> dict[int, float]:
    """JSON's keys are strings, ids are numbers."""
    try:
        return {int(token): bias for token, bias in (given or {}).items()}
    except ValueError:
        raise UserError("logit_bias: its keys are token ids") from None


def known_ids(ids: Sequence[int], name: str, vocab_size: int) -> list[int]:
    """A non-empty list of ids in [0, vocab_size)."""
    if not ids:
        raise UserError(f"{name}: a non-empty list of token ids is needed")
    if min(ids) < 0 or max(ids) >= vocab_size:
        raise UserError(f"{name}: a token id is outside 0..{vocab_size - 1}")
    return list(ids)
