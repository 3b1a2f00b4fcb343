import pytest

from arcforge.chat.tokenizer import Tokenizer
from arcforge.core.words import FILLERS, NAMES


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    texts = [" ".join(NAMES), " ".join(FILLERS), '{"name":"look","parameters":{"type":"object","properties":{"a":{}}}}']
    return Tokenizer.train(texts * 20, 1000)
