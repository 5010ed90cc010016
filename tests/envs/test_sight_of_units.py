"""Under unit control an observation is what that unit sees, here computed once more from the bare state, and
nothing else in the battle changes a bit of it."""

from __future__ import annotations

import numpy as np
import pytest

from envs.battle.batch import BattleBatch
from envs.unit_set import ACTOR_KEYS, FEATURE_INDEX, STATE_KEYS, random_orders
from tests.envs.battles import in_sight, scramble_unseen

OPEN_GROUND = pytest.mark.parametrize("scenario", ["3s_vs_5z", "2s3z", "MMM"])


def play(batch: BattleBatch, steps: int) -> None:
    """Random legal orders."""
    generator = np.random.default_rng(steps)
    for _ in range(steps):
        orders = random_orders(batch.observations[0], generator)
        batch.step(orders.reshape(batch.num_battles, -1, 2))


@OPEN_GROUND
def test_a_unit_is_shown_what_it_sees(scenario: str) -> None:
    batch = BattleBatch(scenario, 4, control="unit")
    shown = unseen_enemies = 0
    for _ in range(30):
        play(batch, 2)
        observation, own = batch.observations[0], batch.team_sizes[0]
        for b in range(batch.num_battles):
            units, expected = batch.state.units[b], in_sight(batch, b)[:own]
            np.testing.assert_array_equal(observation["unit_mask"][b], expected)  # rows are units here
            np.testing.assert_array_equal(observation["controlled_mask"][b, :, 0], units["alive"][:own])
            rows = observation["units"][b]
            assert not rows[~expected].any()
            assert not observation["unit_type"][b][~expected].any()
            assert not observation["target_mask"][b, :, 0].any(1)[~expected].any()
            for column, field in (("x", "x"), ("y", "y")):
                told = np.where(expected, units[field], 0).astype(np.float32)
                np.testing.assert_array_equal(rows[..., FEATURE_INDEX[column]], told)
            told = np.where(expected, units["health"] / 100, 0)
            np.testing.assert_allclose(rows[..., FEATURE_INDEX["health"]], told, rtol=1e-6)
            # Totals add up to what is shown, and no more.
            mine, theirs = expected[:, :own].sum(1), expected[:, own:].sum(1)
            counts = np.log1p(np.stack([mine, theirs], -1)) / 4
            np.testing.assert_allclose(observation["scalars"][b, :, 2:4], counts, rtol=1e-6)
            shown += theirs.sum()
            unseen_enemies += (units["alive"][own:].sum() - theirs[units["alive"][:own]]).sum()
    assert shown > 50
    assert unseen_enemies > 50


@OPEN_GROUND
@pytest.mark.parametrize("steps", [1, 5])
def test_what_a_unit_does_not_see_changes_nothing_it_is_shown(scenario: str, steps: int) -> None:
    plain, changed = (BattleBatch(scenario, 4, control="unit", with_state=True, seed=3) for _ in range(2))
    generator, unseen = np.random.default_rng(steps), 0
    for batch in (plain, changed):
        play(batch, steps)
    for b in range(4):
        (living,) = np.nonzero(plain.observations[0]["controlled_mask"][b, :, 0])
        watcher = int(generator.choice(living))
        changes = scramble_unseen(changed, b, watcher, generator)
        before, after = plain.observations[0], changed.observations[0]
        for key in ACTOR_KEYS:
            np.testing.assert_array_equal(after[key][b, watcher], before[key][b, watcher], err_msg=key)
        different = [not np.array_equal(after[key][b], before[key][b]) for key in STATE_KEYS]
        assert any(different) == (changes > 0)
        unseen += changes
    assert unseen >= 4
