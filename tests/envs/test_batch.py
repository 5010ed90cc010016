"""The batched front: determinism, auto-reset, refusals, and observations that keep the contract."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from envs.battle import compiled
from envs.battle.batch import BattleBatch, Outcome, RewardWeights
from envs.unit_set import (
    FEATURE_INDEX,
    STATE_KEYS,
    ContractError,
    Verb,
    illegal_orders,
    random_orders,
    validate_observation,
    validate_orders,
)


def play(batch, steps, seed=0, battles=None):
    """Random legal orders for external sides, the same per battle whatever the batch size."""
    generators = [np.random.default_rng([seed, b]) for b in battles or range(batch.num_battles)]
    trace = []
    for _ in range(steps):
        orders = []
        for side in (0, 1):
            observation = batch.observations[side]
            if observation is None:
                orders.append(None)
                continue
            each = [
                random_orders({key: value[b] for key, value in observation.items()}, generator)
                for b, generator in enumerate(generators)
            ]
            orders.append(np.stack(each).reshape(batch.num_battles, batch.team_sizes[side], 2))
        result = batch.step(*orders)
        trace.append((batch.state.units.copy(), result.rewards.copy(), result.outcome.copy()))
    return trace


@pytest.mark.parametrize("name", ["3m", "2s3z"])
def test_a_battle_does_not_depend_on_its_neighbours_or_threads(name):
    seeds = np.arange(100, 107, dtype=np.uint64)
    whole = BattleBatch(name, 7)
    whole.reset(seeds)
    threaded = BattleBatch(name, 7, num_threads=3)
    threaded.reset(seeds)
    expected = play(whole, 80)
    for ours, theirs in zip(expected, play(threaded, 80), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert np.array_equal(a, b)
    for b in (0, 6):
        alone = BattleBatch(name, 1)
        alone.reset(seeds[b : b + 1])
        for ours, theirs in zip(expected, play(alone, 80, battles=[b]), strict=True):
            for x, y in zip(ours, theirs, strict=True):
                assert np.array_equal(x[b], y[0])


def test_the_same_seed_gives_the_same_battles_and_another_does_not():
    first, again, other = (BattleBatch("3m", 8, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.state.units, again.state.units)
    assert not np.array_equal(first.state.units, other.state.units)


@pytest.mark.parametrize("control", ["team", "unit"])
@pytest.mark.parametrize("name", ["3m", "2s3z", "5m_vs_6m"])
def test_observations_keep_the_contract_on_both_sides(name, control):
    batch = BattleBatch(name, 4, builtin=(None, None), control=control, with_state=True)
    for _ in range(40):
        play(batch, 1, seed=int(batch.state.battles["loop"][0]))
        for side in (0, 1):
            observation, space = batch.observations[side], batch.observation_space(side)
            for b in range(batch.num_battles):
                for who in [()] if control == "team" else [(n,) for n in range(batch.team_sizes[side])]:
                    validate_observation({key: value[(b, *who)] for key, value in observation.items()}, space)


def test_nothing_ends_up_out_of_bounds_or_negative():
    batch = BattleBatch("3s5z", 16, builtin=(None, None))
    x0, y0, x1, y1 = batch.scenario.playable
    for units, rewards, _ in play(batch, 150):
        assert np.isfinite(rewards).all()
        assert ((units["x"] > x0) & (units["x"] < x1) & (units["y"] > y0) & (units["y"] < y1)).all()
        assert ((units["health"] >= 0) & (units["shield"] >= 0)).all()
        assert ((units["health"] > 0) == units["alive"]).all()


def attack_move(batch, side=0):
    orders = np.zeros((batch.num_battles, batch.team_sizes[side], 2), np.int64)
    alive = batch.observations[side]["controlled_mask"].reshape(orders.shape[:2])
    orders[..., 0] = np.where(alive, Verb.ATTACK_MOVE, Verb.NO_OP)
    return orders


class TestAutoReset:
    def finish(self, batch):
        while not (result := batch.step(attack_move(batch))).done.any():
            pass
        return int(np.flatnonzero(result.done)[0]), result

    def test_same_step_shows_the_next_battle_at_once(self):
        batch = BattleBatch("3m", 8)
        seeds = batch.seeds.copy()
        b, result = self.finish(batch)
        assert result.outcome[b] in (Outcome.WIN_0, Outcome.WIN_1)
        assert result.length[b] > 5
        assert batch.state.battles["steps"][b] == 0
        assert batch.seeds[b] != seeds[b]
        assert batch.observations[0]["controlled_mask"][b].all()

    def test_next_step_shows_the_end_first(self):
        batch = BattleBatch("3m", 8, auto_reset="next_step")
        b, result = self.finish(batch)
        units = batch.state.units[b]
        assert not units["alive"][units["side"] == (0 if result.outcome[b] == Outcome.WIN_1 else 1)].any()
        batch.step(attack_move(batch))
        assert batch.state.battles["steps"][b] == 0
        assert result.rewards[b].tolist() == [0, 0]
        assert not result.done[b]

    def test_off_leaves_it_over(self):
        batch = BattleBatch("3m", 8, auto_reset="off")
        b, result = self.finish(batch)
        before = batch.state.units[b].copy()
        for _ in range(3):
            orders = attack_move(batch)
            orders[b] = -1  # orders for battles that are over do not count
            batch.step(orders)
        assert np.array_equal(batch.state.units[b], before)
        assert result.rewards[b].tolist() == [0, 0]

    def test_a_timeout_is_called_that(self):
        batch = BattleBatch("3m", 2, builtin=(None, None))
        nothing = np.zeros((2, 3, 2), np.int64)
        for _ in range(60):
            result = batch.step(nothing, nothing)
        assert result.outcome.tolist() == [Outcome.TIMEOUT, Outcome.TIMEOUT]
        assert result.length.tolist() == [60, 60]


def test_rewards_are_shares_of_vitality():
    batch = BattleBatch(
        "3m", 32, rewards=RewardWeights(damage=1, damage_taken=0, win=10, loss=3), auto_reset="off", seed=4
    )
    total = np.zeros((32, 2))
    while (batch.state.battles["outcome"] == Outcome.RUNNING).any():
        result = batch.step(attack_move(batch))
        total += result.rewards
    won = batch.state.battles["outcome"] == Outcome.WIN_0
    np.testing.assert_allclose(total[won, 0], 11, rtol=1e-5)  # all the enemy's health, and the win
    health = batch.state.units["health"][won][:, :3].sum(1) / 135
    np.testing.assert_allclose(total[won, 1], 1 - health - 3, rtol=1e-5)
    np.testing.assert_allclose(result.episode_return, total, rtol=1e-5)


@pytest.mark.parametrize(
    "name", ["scenario_model.py", "unit_set.py", "units.py", "data/units.yaml", "battle/engine.py"]
)
def test_the_digest_covers_everything_a_battle_depends_on(tmp_path, monkeypatch, name):
    package = Path(compiled.__file__).parents[1]
    copy = shutil.copytree(package, tmp_path / "envs", ignore=shutil.ignore_patterns("__pycache__"))
    before = compiled.engine_digest()
    monkeypatch.setattr(compiled, "_HERE", copy / "battle")
    assert compiled.engine_digest() == before
    (copy / name).write_bytes((copy / name).read_bytes() + b"\n")
    assert compiled.engine_digest() != before


class TestOut:
    @pytest.mark.parametrize("control", ["team", "unit"])
    def test_observations_land_in_the_given_arrays(self, control):
        batch, plain = (BattleBatch("3m", 4, control=control, with_state=True) for _ in range(2))
        shared = STATE_KEYS if control == "unit" else ()  # one state for the units of a battle
        buffer = {
            key: np.zeros((2, *(value[:, :1] if key in shared else value).shape), value.dtype)
            for key, value in batch.observations[0].items()
        }
        for t in range(2):
            out = {key: value[t] for key, value in buffer.items()}
            batch.step(attack_move(batch), out=(out, None))
            plain.step(attack_move(plain))
            for key, value in plain.observations[0].items():
                np.testing.assert_array_equal(batch.observations[0][key], value)
                np.testing.assert_array_equal(np.broadcast_to(buffer[key][t], value.shape), value)
        assert not np.array_equal(buffer["units"][0], buffer["units"][1])

    def test_misfits_are_refused(self):
        batch = BattleBatch("3m", 4)
        bad = {
            key: np.zeros((3, *value.shape[1:]), value.dtype) for key, value in batch.observations[0].items()
        }
        with pytest.raises(ValueError, match="contiguous"):
            batch.step(attack_move(batch), out=(bad, None))


class TestRefusals:
    def test_illegal_orders_name_unit_verb_and_reason_and_nothing_moves(self):
        batch = BattleBatch("3m", 2)
        before = batch.state.units.copy()
        orders = attack_move(batch)
        orders[1, 2] = (Verb.ATTACK, 4)
        with pytest.raises(ValueError, match="battle 1, side 0, unit 2: ATTACK is not available now"):
            batch.step(orders)
        orders[1, 2] = (99, 0)
        with pytest.raises(ValueError, match="verb 99 does not exist"):
            batch.step(orders)
        assert np.array_equal(batch.state.units, before)

    def test_a_target_must_be_allowed(self):
        batch = BattleBatch("3m", 1, builtin=(None, None))
        batch.state.units["x"][0] += np.where(batch.state.units["side"][0] == 0, 6, 0)
        batch.refresh()
        orders = attack_move(batch)
        orders[0, 0] = (Verb.ATTACK, 1)
        with pytest.raises(
            ValueError, match=r"ATTACK cannot target row 1; rows that can be targeted: \[3, 4, 5\]"
        ):
            batch.step(orders, np.zeros_like(orders))

    def test_orders_must_fit(self):
        batch = BattleBatch("3m", 2)
        with pytest.raises(ValueError, match="expected integers"):
            batch.step(np.zeros((2, 3, 2)))
        with pytest.raises(ValueError, match="takes no orders"):
            batch.step(attack_move(batch), attack_move(batch))
        with pytest.raises(ValueError, match="needs orders"):
            batch.step(None)

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"num_battles": 0}, "num_battles is 0"),
            ({"num_battles": 1, "control": "tem"}, "team, unit"),
            ({"num_battles": 1, "auto_reset": "sometimes"}, "same_step"),
        ],
    )
    def test_arguments(self, arguments, words):
        with pytest.raises(ValueError, match=words):
            BattleBatch("3m", **arguments)


class TestValidator:
    @pytest.fixture
    def observed(self):
        batch = BattleBatch("3m", 1)
        return {
            key: value[0].copy() for key, value in batch.observations[0].items()
        }, batch.observation_space()

    def break_and_expect(self, observed, change, words):
        observation, space = observed
        change(observation)
        with pytest.raises(ContractError, match=words):
            validate_observation(observation, space)

    def test_it_says_which_rule_is_broken(self, observed):
        def units(o):
            o["units"][5, FEATURE_INDEX["health"]] = 1.0

        self.break_and_expect(observed, units, "row 5 of 'units' is not masked in")

    @pytest.mark.parametrize(
        ("key", "index", "value", "words"),
        [
            ("units", (0, 0), np.nan, "not finite"),
            ("unit_type", (0,), 999, "outside"),
            ("controlled", (0,), 5, "slot 0 commands a row"),
            ("unit_type", (5,), 1, "row 5 of 'unit_type'"),
            ("units", (0, FEATURE_INDEX["own"]), 0.0, "slot 0 commands a row that is not its own"),
            ("controlled", (0,), 1, "the same row"),
            ("verb_mask", (1,), False, "slot 1 has no verb"),
            ("verb_mask", (1, Verb.ATTACK), True, "slot 1 has a targeting verb without targets"),
            ("target_mask", (2, 0, 5), True, "slot 2 may target a row"),
            ("controlled_mask", (0,), False, "slot 0 commands no unit"),
        ],
    )
    def test_each_rule(self, observed, key, index, value, words):
        self.break_and_expect(observed, lambda o: o[key].__setitem__(index, value), words)

    def test_a_slot_without_a_unit_names_no_row(self, observed):
        def change(o):
            o["controlled_mask"][1] = False
            o["verb_mask"][1] = np.arange(len(Verb)) == Verb.NO_OP
            o["target_mask"][1] = False

        self.break_and_expect(observed, change, "slot 1 commands no unit, so its 'controlled' must be 0")

    def test_a_slot_commands_its_own_side_only(self):
        batch = BattleBatch("3m", 1, builtin=(None, None))
        batch.state.units["x"][0] += np.where(batch.state.units["side"][0] == 0, 6, 0)
        batch.refresh()  # the enemies are in sight
        observation = {key: value[0].copy() for key, value in batch.observations[0].items()}
        observation["controlled"][0] = 3
        with pytest.raises(ContractError, match="slot 0 commands a row that is not its own"):
            validate_observation(observation, batch.observation_space())

    def test_keys_shapes_and_dtypes(self, observed):
        self.break_and_expect(observed, lambda o: o.pop("scalars"), "missing")
        observation, space = observed
        observation["scalars"] = np.zeros(3, np.float32)
        with pytest.raises(ContractError, match="scalars"):
            validate_observation(observation, space)

    def test_random_orders_are_legal_and_cover_verbs_and_targets(self):
        batch = BattleBatch("3m", 256, builtin=(None, None))
        batch.state.units["x"] += np.where(batch.state.units["side"] == 0, 6, 0)
        batch.refresh()
        orders = random_orders(batch.observations[0], np.random.default_rng(0))
        assert not illegal_orders(
            orders, batch.observations[0]["verb_mask"], batch.observations[0]["target_mask"]
        ).any()
        validate_orders(orders, batch.observations[0])
        assert set(np.unique(orders[..., 0])) == set(range(Verb.ABILITY))
        assert set(orders[orders[..., 0] == Verb.ATTACK][:, 1]) == {3, 4, 5}


@pytest.mark.parametrize("marks", [np.ones(2, bool), np.ones(4, int), np.ones((4, 1), bool)])
def test_restart_reads_no_marks_but_one_a_battle(marks):
    """The kernel does not look whether there are as many as battles."""
    with pytest.raises(ValueError, match=r"expected bools \(4,\)"):
        BattleBatch("3m", 4).restart(marks)
