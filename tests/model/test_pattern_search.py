"""The beam search over layers, against trying every pattern."""

from itertools import combinations

import pytest

from arcforge.model.pattern import search_pattern


def additive(weights):
    return lambda layers: float(sum(weights[layer] for layer in layers))


def test_a_sum_over_layers_is_solved_exactly_in_both_step_sizes():
    weights = [3.0, -1.0, 4.0, 1.0, -5.0, 9.0, 2.0, 6.0]
    for per_step in (1, 2, 3):
        best = search_pattern(8, additive(weights), beam=8, per_step=per_step)[0]
        assert best.layers == (0, 2, 5, 7) and best.score == 22.0
        assert best.text(8) == "SFSFFSFS"


def test_a_wide_beam_finds_what_a_greedy_one_misses():
    """Layers 0 and 1 are only good together with 2 and 3, which alone are bad."""

    def score(layers):
        return 10.0 if {0, 1, 2, 3} <= set(layers) else -len({0, 1, 2, 3} & set(layers))

    everything = max(score(layers) for layers in combinations(range(8), 4))
    found = {beam: search_pattern(8, score, cheaper=4, beam=beam)[0].score for beam in (1, 30)}
    assert found[30] == everything == 10.0 and found[1] < 10.0


def test_each_pattern_is_scored_once_and_the_beam_is_best_first():
    asked = []

    def score(layers):
        asked.append(layers)
        return float(layers[0] * 7 % 5)

    patterns = search_pattern(6, score, beam=4)
    assert len(asked) == len(set(asked)) and len(patterns) == 4
    assert [p.score for p in patterns] == sorted((p.score for p in patterns), reverse=True)
    assert all(len(p.layers) == 3 for p in patterns)
    assert patterns == search_pattern(6, score, beam=4), "the same search finds the same"


@pytest.mark.parametrize("wrong", [{"cheaper": 9}, {"cheaper": -1}, {"beam": 0}, {"per_step": 0}])
def test_numbers_that_make_no_sense(wrong):
    with pytest.raises(ValueError, match="cannot be searched"):
        search_pattern(8, additive([0.0] * 8), **wrong)
