import random
import string

import pytest

from arcforge.data.baselines import OrderTwoBytes
from arcforge.data.dedup import deduplicated, signature
from arcforge.data.filters import Limits, filtered, reason_to_drop
from arcforge.data.sources import Document, split


def document(name: str, text: str) -> Document:
    return Document(name, text, name)


def sentence(rng: random.Random, words: int) -> str:
    return " ".join("".join(rng.choices(string.ascii_lowercase, k=5)) for _ in range(words))


GOOD = "def total(values):\n    return sum(values)\n" * 10


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GOOD, ""),
        ("x = 1\n", "short"),
        (GOOD * 2000, "long"),
        (GOOD + "x = '" + "a" * 500 + "'\n", "long line"),
        (("word " * 50 + "\n") * 20, "long lines"),
        ("(+) [-] {*} == != <> ;;\n" * 30, "symbols"),
    ],
)
def test_reasons(text, reason):
    assert reason_to_drop(text, Limits()) == reason


def test_filtered_counts_reasons_and_keeps_order():
    kept, dropped = filtered([document("a", GOOD), document("b", "x"), document("c", GOOD), document("d", "y")])
    assert [d.path for d in kept] == ["a", "c"]
    assert dropped == {"short": 2}


def test_near_duplicates_go_and_the_first_stays():
    rng = random.Random(0)
    original = sentence(rng, 400)
    words = original.split()
    words[200] = "changed"
    near, other = " ".join(words), sentence(rng, 400)
    kept = deduplicated([document("a", original), document("b", other), document("c", near), document("d", original)])
    assert [d.path for d in kept] == ["a", "b"]


def test_equal_minima_estimate_the_similarity():
    rng = random.Random(1)
    shared, left, right = sentence(rng, 300), sentence(rng, 150), sentence(rng, 150)
    a, b = signature(f"{shared} {left}"), signature(f"{shared} {right}")
    # 296 shared shingles of about 596 in the union; 128 minima estimate it within 0.15 (three deviations).
    assert abs(float((a == b).mean()) - 0.5) < 0.15
    assert (signature("") == signature("")).all() and signature("one word").shape == a.shape


def test_texts_shorter_than_a_shingle_differ():
    assert len(deduplicated([document("a", "x y"), document("b", "y x"), document("c", "x y")])) == 2


def test_order_two_is_a_distribution():
    model = OrderTwoBytes.fit(["abracadabra", "été"])
    sums = model.probabilities.sum(axis=1)
    assert sums.shape == (65536,) and abs(sums - 1).max() < 1e-4
    assert model.probabilities.min() > 0


def test_order_two_by_hand():
    # After "ab" only "c" was seen, once: (1 + 1 * p1) / (1 + 1), and so on down to the uniform distribution.
    model = OrderTwoBytes.fit(["abc"])
    p0 = (1 + 3 * (1 / 256)) / (3 + 3)
    p1 = (1 + p0) / 2
    p2 = (1 + p1) / 2
    assert model.probabilities[ord("a") * 256 + ord("b"), ord("c")] == pytest.approx(p2, rel=1e-5)


def test_order_two_learns_from_real_text_and_not_from_noise(library):
    train, held = split(library)
    train, held = [d.text for d in train[:150]], [d.text for d in held[:20]]
    model = OrderTwoBytes.fit(train)
    assert 2.0 < model.bits_per_byte(train) < model.bits_per_byte(held) < 3.6
    noise = "".join(random.Random(2).choices(string.printable, k=20_000))
    assert model.bits_per_byte([noise]) > 6
    with pytest.raises(ValueError, match="empty"):
        model.bits_per_byte([])
