import random
from collections import Counter

import numpy as np
import pytest

from arcforge.chat.tokenizer import Tokenizer
from arcforge.core.errors import UserError
from arcforge.data.drills import KINDS, drill
from arcforge.data.pieces import Pieces, seeded, tokenised
from arcforge.data.retrieval import evaluation_rows, filler_lines, packed, retrieval_row, training_row


@pytest.fixture(scope="session")
def filler(library, tokenizer):
    return filler_lines([document.text for document in library[40:60]], tokenizer)


def text_of(ids, tokenizer) -> str:
    return tokenizer.decode([int(i) for i in ids])


def body(tokens_ids, pieces) -> list[int]:
    assert tuple(tokens_ids[:2]) == pieces.prefix
    return [int(i) for i in tokens_ids[2:]]


def test_pieces_know_the_names(pieces, tokenizer):
    assert len(pieces.names) > 100
    assert all(tokenizer.encode(name) == list(pieces.ids(name)) and len(pieces.ids(name)) == 1 for name in pieces.names)


def test_a_tokenizer_without_the_words_is_refused():
    with pytest.raises(UserError, match="words of the generated texts"):
        Pieces(Tokenizer.train(["0 1 2 3"], 300))


def test_tokenised_documents(library, tokenizer):
    document = library[0]
    (tokens,) = tokenised([document], tokenizer)
    prefix = [tokenizer.id("[gMASK]"), tokenizer.id("<sop>")]
    assert tokens.ids.tolist() == prefix + tokenizer.encode(document.text) + [tokenizer.id("<|endoftext|>")]
    assert tokens.mask.tolist() == [False, False] + [True] * (len(tokens) - 2)


@pytest.mark.parametrize("kind", KINDS)
def test_drills_are_what_their_text_encodes_to(kind, pieces, tokenizer):
    for seed in range(20):
        tokens = drill(random.Random(seed), pieces, 256, kind)
        assert len(tokens) == 256
        ids = body(tokens.ids, pieces)
        assert tokenizer.encode(text_of(ids, tokenizer)) == ids
        assert tokens.mask.any() and not tokens.mask[:2].any()


def test_drills_are_repeatable_and_differ(pieces):
    rows = {drill(seeded("drills", 0, i), pieces).ids.tobytes() for i in range(20)}
    assert len(rows) == 20
    assert drill(seeded("drills", 0, 3), pieces).ids.tobytes() in rows


def masked_words(tokens, tokenizer) -> list[tuple[str, str]]:
    """(text before, token) of every target, for the drills whose targets are single tokens."""
    ids = tokens.ids.tolist()
    return [(text_of(ids[2:t], tokenizer), text_of(ids[t : t + 1], tokenizer)) for t in np.flatnonzero(tokens.mask)]


def test_recall_targets_are_the_values_seen_before(pieces, tokenizer):
    distances = set()
    for seed in range(5):
        for before, value in masked_words(drill(random.Random(seed), pieces, 256, "recall"), tokenizer):
            *lines, last = before.split("\n")
            earlier = [i for i, line in enumerate(lines) if line.startswith(last)]
            assert {lines[i] for i in earlier} == {last + value}
            distances.add(len(lines) - earlier[-1])
    assert len(distances) > 10, "the last occurrence stands at many distances"


def test_recall_trains_every_repeated_value(pieces, tokenizer):
    tokens = drill(random.Random(0), pieces, 256, "recall")
    lines = text_of(tokens.ids[2:], tokenizer).split("\n")[:-1]
    keys = Counter(line.split("=")[0] for line in lines)
    assert abs(sum(keys.values()) - len(keys) - int(tokens.mask.sum())) <= 1


def test_path_targets_follow_their_first_name(pieces, tokenizer):
    for before, name in masked_words(drill(random.Random(1), pieces, 256, "path"), tokenizer):
        *lines, last = before.split("\n")
        assert any((line + "\n").startswith(last + name) for line in lines)


def test_echo_targets_are_the_name_opened_last(pieces, tokenizer):
    for before, name in masked_words(drill(random.Random(2), pieces, 256, "echo"), tokenizer):
        assert before.endswith("read ")
        opened = [line for line in before.split("\n") if line.startswith("open ")]
        assert opened[-1] == f"open {name}.py"


def test_expression_targets_stood_after_the_same_file(pieces, tokenizer):
    tokens = drill(random.Random(3), pieces, 256, "expression")
    lines = text_of(tokens.ids[2:], tokenizer).split("\n")
    known = dict(line.split(": ") for line in lines[:-1])
    assert all(line.split(": ")[1] == known[line.split(": ")[0]] for line in lines[:-1])
    trained = text_of(tokens.ids[tokens.mask], tokenizer).split("\n")[:-1]
    assert len(trained) == len(lines) - 1 - len(known)
    assert set(trained) <= set(known.values())


@pytest.mark.parametrize("length", [128, 257, 1024])
@pytest.mark.parametrize("with_filler", [True, False])
def test_needles_and_answers(length, with_filler, pieces, tokenizer, filler):
    row = retrieval_row(random.Random(0), pieces, length, 12, filler if with_filler else ())
    assert len(row.ids) == len(row.mask) == length
    assert row.query_count == len(row.answer_positions) == 8
    assert np.flatnonzero(row.mask).tolist() == list(row.answer_positions)
    assert row.chance == 1 / 12
    lines = text_of(row.ids[2:], tokenizer).split("\n")[:-1]
    queries, document = lines[-8:], lines[:-8]
    assert len(set(queries)) == 8
    for query, t in zip(queries, row.answer_positions):
        key, value = query.split("=")
        assert [line for line in document if line.startswith(f"{key}=") and line[len(key) + 1 :] in pieces.names] == [
            query
        ]
        assert text_of(row.ids[t : t + 1], tokenizer) == value


def test_needles_stand_everywhere(pieces, filler):
    places = []
    for i in range(150):
        row = retrieval_row(seeded("test", i), pieces, 512, 4, filler, queries=4)
        ids = row.ids.tolist()
        answers = {ids[t - 2] for t in row.answer_positions}
        equals = pieces.ids("=")[0]
        end = row.answer_positions[0] - 2
        places += [t / end for t in range(2, end - 1) if ids[t] in answers and ids[t + 1] == equals]
    counts, _ = np.histogram(places, bins=5, range=(0, 1))
    assert len(places) >= 600 and counts.min() > 0.14 * len(places), counts


def test_ordinals_ask_for_the_nth_value(pieces, tokenizer, filler):
    row = retrieval_row(random.Random(4), pieces, 512, 15, filler, "ordinal")
    lines = text_of(row.ids[2:], tokenizer).split("\n")[:-1]
    for query in lines[-8:]:
        key, rest = query.split(" ")
        number, value = rest.split("=")
        given = [line.split("=")[1] for line in lines[:-8] if line.startswith(f"{key}=")]
        assert 2 <= len(given) <= 4 and given[int(number) - 1] == value
    assert 0.25 <= row.chance <= 0.5


def test_keys_of_two_words_when_words_run_out(pieces, tokenizer):
    row = retrieval_row(random.Random(5), pieces, 2048, len(pieces.names) + 20)
    lines = text_of(row.ids[2:], tokenizer).split("\n")
    keys = [line.split("=")[0] for line in lines if "=" in line][:-8]
    assert len(keys) == len(set(keys)) == len(pieces.names) + 20
    assert all(len(key.split()) == 2 for key in keys)


def test_train_everything_and_too_short_rows(pieces):
    row = retrieval_row(random.Random(6), pieces, 128, 4, train_everything=True)
    assert row.mask[2:].all() and not row.mask[:2].any()
    with pytest.raises(ValueError, match="more than a row of 64"):
        retrieval_row(random.Random(6), pieces, 64, 24)


def test_evaluation_rows_are_fixed_and_no_training_rows(pieces, filler):
    rows = evaluation_rows(pieces, 256, 8, 6, filler)
    assert [row.ids.tobytes() for row in evaluation_rows(pieces, 256, 8, 6, filler)] == [r.ids.tobytes() for r in rows]
    assert len({row.ids.tobytes() for row in rows}) == 6
    training = {training_row(seeded("retrieval", 0, i), pieces, 256, filler).ids.tobytes() for i in range(200)}
    assert not training & {row.ids.tobytes() for row in rows}
    batch = packed(rows)
    assert batch.ids.shape == (6, 256)
    assert (batch.ids == np.stack([row.ids for row in rows])).all() and (
        batch.loss_mask == [r.mask for r in rows]
    ).all()


def test_training_rows_fill_their_length(pieces):
    for i in range(50):
        tokens = training_row(seeded("retrieval", 1, i), pieces, 96)
        assert len(tokens) == 96 and tokens.mask.sum() >= 2


def test_filler_has_no_needles(tokenizer):
    lines = filler_lines(["  x = 1\n\nfox=lamb\nfox 2=lamb\nreturn fox\n"], tokenizer)
    assert [text_of(line, tokenizer) for line in lines] == ["x = 1\n", "return fox\n"]
