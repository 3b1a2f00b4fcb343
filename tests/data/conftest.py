import random

import pytest

from arcforge.chat.tokenizer import Tokenizer
from arcforge.core.words import FILLERS, NAMES
from arcforge.data.pieces import Pieces
from arcforge.data.sources import Document, standard_library


@pytest.fixture(scope="session")
def library() -> list[Document]:
    return standard_library()


@pytest.fixture(scope="session")
def tokenizer(library) -> Tokenizer:
    rng = random.Random(0)
    words = [" ".join(rng.sample(NAMES + FILLERS, 100)) for _ in range(300)]
    return Tokenizer.train([*words, *(document.text for document in library[:40])], 1024)


@pytest.fixture(scope="session")
def pieces(tokenizer) -> Pieces:
    return Pieces(tokenizer)
