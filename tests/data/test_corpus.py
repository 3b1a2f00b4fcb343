import pytest

from arcforge.core.errors import UserError
from arcforge.core.messages import Message
from arcforge.core.tasks import Conversation
from arcforge.core.words import NAMES
from arcforge.data.corpus import DataConfig, load_corpus, tokenizer_texts


@pytest.fixture
def folder(tmp_path):
    for i in range(40):
        lines = [f"def {a}_{i}({b}):\n    return {b} * {i}\n" for a, b in zip(NAMES[i : i + 30], NAMES[3 * i :])]
        (tmp_path / f"module{i}.py").write_text("".join(lines))
    (tmp_path / "copy.py").write_text((tmp_path / "module0.py").read_text())
    (tmp_path / "tiny.py").write_text("x = 1\n")
    return tmp_path


def test_corpus_is_filtered_deduplicated_and_divided(folder):
    corpus = load_corpus(DataConfig(source=str(folder), held_out=0.2))
    paths = {document.path for document in corpus.train + corpus.held_out}
    assert len(paths) == 40 and "tiny.py" not in paths
    assert ("copy.py" in paths) != ("module0.py" in paths)
    assert 2 <= len(corpus.held_out) <= 16
    assert load_corpus(DataConfig(source=str(folder), held_out=0.2)) == corpus


def test_a_part_of_the_source(folder):
    corpus = load_corpus(DataConfig(source=str(folder), held_out=0.2, megabytes=0.005))
    size = sum(len(document.text) for document in corpus.train)
    assert 5000 <= size < 8000 and len(corpus.held_out) >= 1


def test_tokenizer_texts_hold_the_words_and_no_held_out_text(folder):
    corpus = load_corpus(DataConfig(source=str(folder)))
    conversation = Conversation(messages=(Message(role="user", content="mend the fox"),))
    texts = tokenizer_texts(corpus, [conversation])
    assert any("mend the fox" in text for text in texts) and " ".join(NAMES) in texts
    assert not {document.text for document in corpus.held_out} & set(texts)


def test_missing_source_is_told(tmp_path):
    with pytest.raises(UserError, match=r"data\.source"):
        load_corpus(DataConfig(source=str(tmp_path / "absent")))
