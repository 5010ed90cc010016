"""Shares of the battles by win rate."""

import json

import pytest

from training.rl.curriculum import FLOOR, LEAST_BATTLES, OPENS_AT, Curriculum
from training.rl.tally import HALF_LIFE, Tally

MIXTURE = {"small": 1.0, "middle": 1.0, "large": 2.0}


def ended(battles: int, wins: int) -> dict[str, float]:
    return {"num_episodes": battles, "num_wins": wins, "return_sum": 2.0 * wins, "length_sum": 30 * battles}


def test_a_tally_forgets_by_battles() -> None:
    tally = Tally().after(ended(HALF_LIFE, HALF_LIFE)).after(ended(HALF_LIFE, 0))
    assert tally.battles == 1.5 * HALF_LIFE
    assert tally.win_rate == pytest.approx(1 / 3)
    assert (tally.episode_return, tally.episode_length) == (pytest.approx(2 / 3), 30)
    assert Tally().after(ended(0, 0)) == Tally()
    assert Tally().win_rate != Tally().win_rate, "NaN"


def test_no_curriculum_keeps_to_the_weights() -> None:
    curriculum = Curriculum("none", MIXTURE)
    curriculum.note({"small": ended(50, 50)})
    assert curriculum.weights() == pytest.approx((0.25, 0.25, 0.5))


def test_contested_prefers_what_is_won_half_of_the_time() -> None:
    curriculum = Curriculum("contested", MIXTURE)
    assert curriculum.weights() == pytest.approx((0.25, 0.25, 0.5)), "nothing is known yet"
    curriculum.note({"small": ended(98, 98), "middle": ended(98, 49), "large": ended(98, 0)})
    scores = [99 / 100 * 1 / 100, 1 / 4, 1 / 100 * 99 / 100]
    pull = [0.25 * scores[0], 0.25 * scores[1], 0.5 * scores[2]]
    expected = [FLOOR * b + (1 - FLOOR) * p / sum(pull) for b, p in zip((0.25, 0.25, 0.5), pull, strict=True)]
    assert curriculum.weights() == pytest.approx(expected)
    assert sum(curriculum.weights()) == pytest.approx(1)
    assert min(curriculum.weights()) >= FLOOR * 0.25, "nothing is forgotten"


def test_progress_prefers_what_moves() -> None:
    curriculum = Curriculum("progress", dict.fromkeys(MIXTURE, 1.0))
    for wins in (0, 0, 0, 100):
        curriculum.note(
            {"small": ended(100, wins), "middle": ended(100, 50), "large": ended(100, 100 - wins)}
        )
    small, middle, large = curriculum.weights()
    assert small == pytest.approx(large), "falling is moving"
    assert middle == pytest.approx(FLOOR / 3)
    still = Curriculum("progress", dict.fromkeys(MIXTURE, 1.0))
    still.note({name: ended(10, 5) for name in MIXTURE})
    assert still.weights() == pytest.approx((1 / 3, 1 / 3, 1 / 3)), "nothing moves"


def test_a_ladder_opens_the_next_when_the_last_is_won() -> None:
    curriculum = Curriculum("ladder", MIXTURE)
    assert curriculum.weights() == (1.0, 0.0, 0.0)
    curriculum.note({"small": ended(LEAST_BATTLES - 1, LEAST_BATTLES - 1)})
    assert curriculum.num_open == 1, "too few battles"
    curriculum.note({"small": ended(20, 0)})
    assert curriculum.num_open == 1
    curriculum.note({"small": ended(200, round(200 * OPENS_AT) + 10)})
    small, middle, large = curriculum.weights()
    assert large == 0
    assert small + middle == pytest.approx(1)
    curriculum.note({"small": ended(200, 0), "middle": ended(10, 0)})
    assert curriculum.num_open == 2, "what is open stays open"
    curriculum.note({"middle": ended(200, 200)})
    assert min(curriculum.weights()) > 0


@pytest.mark.parametrize("kind", ["contested", "progress", "ladder"])
def test_a_restored_one_goes_on_alike(kind) -> None:
    curriculum, restored = Curriculum(kind, MIXTURE), Curriculum(kind, MIXTURE)
    for battles in (37, 41, 90):
        curriculum.note({"small": ended(battles, battles - 3), "middle": ended(battles, battles // 2)})
    restored.restore(json.loads(json.dumps(curriculum.to_dict())))
    for one in (curriculum, restored):
        one.note({"middle": ended(30, 29)})
    assert restored.weights() == curriculum.weights()
    assert restored.to_dict() == curriculum.to_dict()


def test_what_cannot_be_restored_is_refused() -> None:
    curriculum = Curriculum("ladder", MIXTURE)
    content = curriculum.to_dict()
    with pytest.raises(ValueError, match="not of the mixture small, middle"):
        Curriculum("ladder", {"small": 1.0, "middle": 1.0}).restore(content)
    for broken in ([], {"scenarios": list(MIXTURE)}, content | {"tallies": {"small": {"games": 3}}}):
        with pytest.raises(ValueError, match=r"not of the mixture|too much"):
            curriculum.restore(broken)
