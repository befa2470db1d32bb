from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from posttrain.curricula.cyclical_curriculum import (
    CyclicalCurriculum,
    draw_rows,
    selection_chances,
    size_schedule,
)


class TestCyclicalCurriculum:
    @pytest.mark.parametrize(
        ("options", "sizes"),
        [
            (
                {"start": 0.1, "end": 0.35, "alpha": 0.5, "num_epochs": 1.2},
                [0.1, 0.2, 0.35, 0.175, 0.1, 0.2, 0.35],
            ),
            ({"start": 1.0, "num_epochs": 3}, [1, 1, 1]),
            ({"num_epochs": 0.1}, [0.25]),
        ],
    )
    def test_sizes(self, options, sizes):
        assert size_schedule(**options) == pytest.approx(sizes)

    def test_chances(self):
        assert selection_chances([2, 0, 8], "easy").tolist() == pytest.approx([4 / 9, 4 / 9, 1 / 9])
        assert selection_chances([2, 0, 8], "hard").tolist() == pytest.approx([2 / 12, 2 / 12, 8 / 12])
        assert selection_chances([2, 0, 8], "random").tolist() == pytest.approx([1 / 3] * 3)
        assert selection_chances([0, 0], "easy").tolist() == [0.5, 0.5]

    def test_a_clipped_long_tail_has_its_bounds_and_proportions_between_them(self):
        """Renormalising after a plain clip would give the first row 24 times the uniform chance."""
        found = selection_chances([1e9] + [1.0] * 999, "hard", clip=(0.2, 5)) * 1000
        assert found[0] == pytest.approx(5) and found[1:].tolist() == pytest.approx([995 / 999] * 999)
        found = selection_chances([1, 2, 3, 1000], "hard", clip=(0.2, 2)) * 4
        assert found.tolist() == pytest.approx([2 / 6, 4 / 6, 1, 2])

    def test_a_single_draw_follows_the_chances(self):
        stream = np.random.default_rng(0)
        first = sum(draw_rows(np.array([0.9, 0.1]), 1, stream) == [0] for _ in range(20_000))
        assert first / 20_000 == pytest.approx(0.9, abs=0.01)

    def test_two_draws_follow_the_chances_one_after_the_other(self):
        chances = np.array([0.5, 0.3, 0.2])
        stream = np.random.default_rng(0)
        pairs = Counter(frozenset(draw_rows(chances, 2, stream)) for _ in range(20_000))
        expected = {(0, 1): 0.5 * 0.6 + 0.3 * 5 / 7, (0, 2): 0.5 * 0.4 + 0.2 * 5 / 8}
        for pair, chance in expected.items():
            assert pairs[frozenset(pair)] / 20_000 == pytest.approx(chance, abs=0.015)

    def test_rows_of_a_full_mini_epoch_are_shuffled_whatever_their_chances(self):
        stream = np.random.default_rng(0)
        chances = selection_chances([1.0, 1e6], "easy")
        first = [draw_rows(chances, 2, stream)[0] for _ in range(1000)]
        assert 400 < sum(first) < 600

    def test_small_mini_epochs_prefer_the_easy_and_depend_on_seed_and_number(self):
        curriculum = CyclicalCurriculum(
            values=list(range(1, 401)), preference="easy", num_epochs=9, clip=None
        )
        assert curriculum.num_mini_epochs == 16
        small = [curriculum.mini_epoch(seed, number) for seed in (0, 1) for number in (0, 4, 8)]
        assert len({frozenset(rows) for rows in small}) == 6
        assert curriculum.mini_epoch(0, 4) == small[1]
        assert all(np.mean(rows) < 150 for rows in small)
        assert sorted(curriculum.mini_epoch(0, 2)) == list(range(400))

    def test_rows_never_drawn_are_listed(self):
        curriculum = CyclicalCurriculum(
            values=[1.0] * 9, preference="random", num_epochs=0.5, start=0.25, end=0.5
        )
        drawn = {row for number in range(2) for row in curriculum.mini_epoch(0, number)}
        assert curriculum.sizes == [0.25, 0.5]
        assert curriculum.never_drawn(0) == sorted(set(range(9)) - drawn) != []

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"start": 0.0}, "start is 0.0"),
            ({"start": 0.9, "end": 0.5}, "end is 0.5"),
            ({"end": 1.5}, "end is 1.5"),
            ({"alpha": 1.0}, "alpha is 1.0"),
            ({"num_epochs": 0}, "num_epochs is 0"),
            ({"num_epochs": float("inf")}, "num_epochs is inf"),
            ({"preference": "short"}, "'short': choose one of easy, hard, random"),
            ({"values": []}, "there are none"),
            ({"values": [1.0, -2.0]}, "row 1 has -2.0"),
            ({"values": [float("nan")]}, "row 0 has nan"),
            ({"clip": (0.0, 2.0)}, r"clip is \(0.0, 2.0\)"),
            ({"clip": (0.5, 0.9)}, r"clip is \(0.5, 0.9\)"),
        ],
    )
    def test_refused(self, options, words):
        with pytest.raises(ValueError, match=words):
            CyclicalCurriculum(**{"values": [1.0, 2.0], "preference": "easy", "num_epochs": 2, **options})
