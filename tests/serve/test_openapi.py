"""Requests made up from the server's own OpenAPI description: whatever comes, the answer is never a 5xx."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from scripted_server import new_tokenizer
from toy_engine import serving

from arcforge.infer.engine import Engine, EngineConfig
from arcforge.model.config import ModelConfig
from arcforge.model.initialise import new_model
from arcforge.serve.loop import EngineLoop
from arcforge.serve.server import build_app

SMALL = ModelConfig(
    vocab_size=320, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, q_lora_rank=8, kv_lora_rank=8,
    qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8, intermediate_size=16, moe_intermediate_size=8,
    n_routed_experts=2, index_n_heads=2, index_head_dim=8, index_topk=16,
)  # fmt: skip
HOLDING = {"/pause", "/pause_generation"}
"""These make later requests wait: each is followed by a resume."""

PLAIN = {"/resume", "/continue_generation", "/flush_cache", "/reset_prefix_cache", "/model_info", "/weight_info"}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    tokenizer = new_tokenizer()
    assert tokenizer.vocab_size <= SMALL.vocab_size
    loop = EngineLoop(Engine(new_model(SMALL, seed=1), EngineConfig(max_running=16, max_length=64, drafts=2)))
    with serving(build_app(loop, tokenizer, "small", max_length=64), loop) as address:
        yield address


@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_no_request_makes_the_server_fail(url: str, mode: str) -> None:
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) >= 19
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as http:
        for operation in operations:
            strategy = operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode))

            @settings(
                max_examples=12,
                deadline=None,
                derandomize=True,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=strategy)
            def answers(case: schemathesis.Case) -> None:
                response = case.call(base_url=url)
                assert response.status_code < 500, (case.as_curl_command(), response.text)
                if case.operation.path in HOLDING:
                    assert http.post("/resume").status_code == 200

            try:
                answers()
            except Unsatisfiable:  # nothing can be wrong in a request without parameters
                assert (mode == "negative" and operation.method == "get") or operation.path in PLAIN
        assert http.get("/health").status_code == 200
