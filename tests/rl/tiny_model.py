"""A model of a few thousand weights, and a family of one-turn tasks whose reward an untrained model already varies in."""

from dataclasses import dataclass, field

from arcforge.chat.tokenizer import Tokenizer
from arcforge.core.messages import Message, Thinking
from arcforge.core.protocols import Verdict
from arcforge.envs.single_turn import SingleTurnTask
from arcforge.model.config import ModelConfig

TOKENIZER = Tokenizer.train(["say yes as often as you can, and never say no"] * 4, 290)

CONFIG = ModelConfig(
    vocab_size=TOKENIZER.vocab_size, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, q_lora_rank=24,
    kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=16, intermediate_size=48,
    moe_intermediate_size=16, n_routed_experts=4, index_n_heads=8, index_head_dim=16, index_topk=12,
)  # fmt: skip

LENGTH = 8


class ManyS:
    """The share of the reply's places that hold an "s"."""

    async def score(self, messages, reference):
        return Verdict(reward=min(1.0, messages[-1].content.count("s") / LENGTH))


@dataclass
class Letters:
    """Counts what was asked of it, so that a test can tell which tasks a run took."""

    name: str = "letters"
    domains: tuple[str, ...] = ("letters",)
    closed: int = 0
    asked: list[int] = field(default_factory=list)

    def task(self, split, index) -> SingleTurnTask:
        self.asked.append(index)
        question = Message(role="user", content=f"say {'yes no as often'.split()[index % 4]}")
        return SingleTurnTask(
            task_id=f"letters/{index}",
            family=self.name,
            domain=self.name,
            messages=(question,),
            scorer=ManyS(),
            reference={},
            thinking=Thinking(enabled=False),
            max_tokens=LENGTH,
        )

    def demonstration(self, index):
        raise NotImplementedError("nothing is demonstrated")

    async def close(self) -> None:
        self.closed += 1
