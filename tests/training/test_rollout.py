"""The batched runner's packs are what the battles really did, for any control and opponent."""

import dataclasses

import numpy as np
import pytest
import ray
import torch
from ray.rllib.core import COMPONENT_RL_MODULE
from ray.rllib.utils.metrics import (
    NUM_ENV_STEPS_SAMPLED,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_EPISODES,
    WEIGHTS_SEQ_NO,
)

from envs.battle.batch import BattleBatch, Outcome
from envs.battle.tactics import TRAINING
from envs.scenarios import load_scenario
from envs.unit_set import STATE_KEYS, Verb
from training.rl.algorithms import build_algorithm_config
from training.rl.config import TrainConfig
from training.rl.rollout import (
    MODULE_ID,
    NUM_DRAWS,
    NUM_ILLEGAL_ORDERS,
    NUM_LOSSES,
    NUM_TIMEOUTS,
    NUM_WINS,
    BatchedEnvRunner,
    _EndedBattles,
)
from training.rl.seats import BattleSetup

SMALL = TrainConfig(
    num_battles=6,
    rollout_steps=12,
    minibatch_size=24,
    model_overrides=("encoder.num_latents=2", "encoder.num_latent_channels=8", "unit_input.num_channels=8"),
)


def make_runner(opponent=None, worker_index=0, **changes) -> BatchedEnvRunner:
    config = build_algorithm_config(dataclasses.replace(SMALL, **changes), opponent=opponent)
    return BatchedEnvRunner(config=config, worker_index=worker_index)


def test_pools_are_trained_against():
    """Every battle's enemy is drawn from the pool, on whichever side it plays, and never one held out."""
    runner = make_runner(opponent="mixed", num_battles=60)
    runner.make_env()
    for seat in runner.env:
        enemy, own = 1 - seat.side, seat.side
        assert seat.battles.builtin[enemy] == "mixed"
        assert set(seat.battles.tactics[:, enemy]) <= set(TRAINING)
        assert len(set(seat.battles.tactics[:, enemy])) > 3
        assert set(seat.battles.tactics[:, own]) == {-1}


class Holder:
    """Orders every living unit to hold, and remembers what shapes it saw."""

    name, deterministic = "holder", True

    def __init__(self):
        self.seen, self.seed = [], None

    def reset(self, seed):
        self.seed = seed

    def act(self, observation):
        self.seen.append(observation["controlled_mask"].shape)
        orders = np.zeros((*observation["controlled_mask"].shape, 2), np.int64)
        orders[..., 0] = np.where(observation["verb_mask"][..., Verb.HOLD], Verb.HOLD, Verb.NO_OP)
        return orders


@pytest.mark.parametrize("control", ["team", "unit"])
@pytest.mark.parametrize("critic", ["observation", "state"])
def test_a_pack_replays(control, critic):
    """Stepping the same battles with the pack's orders gives the pack's observations, rewards and ends."""
    overrides = (*SMALL.model_overrides, f"critic={critic}")
    runner = make_runner(control=control, model_overrides=overrides)
    runner.make_env()
    seeds = [seat.battles.seeds.copy() for seat in runner.env]
    packs = [runner.sample()[0] for _ in range(3)]  # 36 steps: battles end and begin
    assert any(pack.dones.any() for pack in packs)

    for side, rows in ((0, slice(0, 3)), (1, slice(3, 6))):
        battles = BattleBatch(
            "3m",
            3,
            builtin=(None, "attack-move") if side == 0 else ("attack-move", None),
            control=control,
            with_state=critic == "state",
        )
        battles.reset(seeds[side])
        for pack in packs:
            for t in range(SMALL.rollout_steps):
                for key, array in battles.observations[side].items():
                    kept = pack.observations[key][t, rows]
                    if key in STATE_KEYS and control == "unit":
                        assert kept.shape[1] == 1  # one a battle
                        kept = np.broadcast_to(kept, array.shape)
                    np.testing.assert_array_equal(kept, array, err_msg=key)
                orders = [None, None]
                orders[side] = pack.orders[t].reshape(SMALL.num_battles, -1, 2)[rows]
                result = battles.step(*orders)
                np.testing.assert_array_equal(pack.rewards[t, rows], result.rewards[:, side])
                np.testing.assert_array_equal(pack.dones[t, rows], result.done)
        for key, array in battles.observations[side].items():
            last = packs[-1].rows(key, slice(-1, None)).reshape(SMALL.num_battles, *array.shape[1:])
            np.testing.assert_array_equal(last[rows], array)


@pytest.mark.parametrize(
    ("control", "critic"), [("team", "observation"), ("unit", "observation"), ("unit", "state")]
)
def test_log_probs_and_values_are_the_modules(control, critic):
    overrides = (*SMALL.model_overrides, f"critic={critic}")
    runner = make_runner(control=control, model_overrides=overrides)
    (pack,) = runner.sample()
    module = runner.module[MODULE_ID]
    observation = {key: torch.from_numpy(pack.rows(key, slice(-1))) for key in pack.observations}
    orders = torch.from_numpy(pack.orders.reshape(-1, *pack.orders.shape[2:]))
    evaluation = module.policy.evaluate_orders(observation, orders)
    np.testing.assert_allclose(pack.values.ravel(), evaluation.value.detach().numpy(), atol=1e-5)
    np.testing.assert_allclose(
        pack.log_probs.reshape(evaluation.log_prob.shape), evaluation.log_prob.detach().numpy(), atol=1e-5
    )
    assert len(pack) == SMALL.num_battles * SMALL.rollout_steps


def test_packs_do_not_share_memory():
    runner = make_runner()
    first, second = runner.sample()[0], runner.sample()[0]
    for key, array in first.observations.items():
        assert not np.shares_memory(array, second.observations[key])
        np.testing.assert_array_equal(array[-1], second.observations[key][0])


def test_metrics_count_every_battle_once():
    runner = make_runner()
    packs = [runner.sample()[0] for _ in range(4)]
    metrics = runner.get_metrics()
    ended = sum(int(pack.dones.sum()) for pack in packs)
    assert ended > 0
    assert metrics[NUM_EPISODES].peek() == ended
    outcomes = (NUM_WINS, NUM_DRAWS, NUM_LOSSES, NUM_TIMEOUTS)
    assert sum(metrics[key].peek() for key in outcomes) == ended
    assert metrics[NUM_ILLEGAL_ORDERS].peek() == 0
    assert metrics[NUM_ENV_STEPS_SAMPLED].peek() == sum(len(pack) for pack in packs)


def test_illegal_orders_are_counted():
    """Of a rollout whose orders were changed behind the module's back."""
    runner = make_runner()
    (pack,) = runner.sample()
    orders = pack.orders.copy()
    free = pack.observations["controlled_mask"][0, :2].any(-1)
    assert free.all()
    orders[0, :2, 0] = (Verb.ATTACK, 0)  # of row 0, a unit of one's own
    runner._log([dataclasses.replace(pack, orders=orders)], _EndedBattles())
    assert runner.get_metrics()[NUM_ILLEGAL_ORDERS].peek() == 2


@pytest.mark.parametrize("control", ["team", "unit"])
def test_an_agent_can_play_the_other_side(control):
    runner = make_runner(opponent=Holder(), control=control)
    (pack,) = runner.sample()
    slots = (SMALL.num_battles // 2, 3) if control == "team" else (SMALL.num_battles // 2, 3, 1)
    holders = [seat.opponent for seat in runner.env]
    assert [holder.seen for holder in holders] == [[slots] * SMALL.rollout_steps] * 2
    assert holders[0].seed != holders[1].seed
    assert np.isfinite(pack.rewards).all()
    made = make_runner(opponent=Holder, control=control)
    made.make_env()
    assert isinstance(made.env[0].opponent, Holder)
    named = make_runner(opponent="scripted:hold", control=control)
    assert np.isfinite(named.sample()[0].rewards).all()


def test_runners_and_restarts_play_different_battles():
    seeds = []
    for worker_index, steps in ((1, 0), (2, 0), (1, 4096)):
        runner = make_runner(worker_index=worker_index, num_env_runners=2)
        runner.set_state({NUM_ENV_STEPS_SAMPLED_LIFETIME: steps})
        runner.make_env()
        seeds += [seed for seat in runner.env for seed in seat.battles.seeds.tolist()]
    assert len(set(seeds)) == len(seeds) == 3 * SMALL.num_battles // 2


def test_sides():
    """Both where the scenario is symmetric, unless told otherwise; wins are those of the policy's side."""
    even, uneven = load_scenario("3m"), load_scenario("3s_vs_5z")
    assert BattleSetup("3m").sides(even) == (0, 1)
    assert BattleSetup("3m", swap_sides=False).sides(even) == (0,)
    assert BattleSetup("3s_vs_5z").sides(uneven) == (0,)
    with pytest.raises(ValueError, match="not symmetric"):
        BattleSetup("3s_vs_5z", swap_sides=True).sides(uneven)
    first, second = BattleSetup("3m").seats(5, (0,))
    assert (first.rows, second.rows) == (slice(0, 2), slice(2, 5))
    assert (first.victory, second.victory) == (second.defeat, first.defeat) == (Outcome.WIN_0, Outcome.WIN_1)
    assert [seat.side for seat in BattleSetup("3m").seats(1, None)] == [0]


def test_asking_for_episodes_is_refused():
    with pytest.raises(ValueError, match="num_episodes"):
        make_runner().sample(num_episodes=3)


def test_not_exploring_is_refused():
    runner = make_runner()
    with pytest.raises(ValueError, match="always explores"):
        runner.sample(explore=False)
    assert len(runner.sample(explore=True)) == 1
    config = build_algorithm_config(SMALL).env_runners(explore=False)
    with pytest.raises(ValueError, match="always explores"):
        BatchedEnvRunner(config=config, worker_index=0).sample()


def weights_filled_with(runner: BatchedEnvRunner, value: float) -> dict:
    return {
        module_id: {name: np.full_like(array, value) for name, array in state.items()}
        for module_id, state in runner.module.get_state().items()
    }


def holds(runner: BatchedEnvRunner, value: float) -> bool:
    return all((parameter == value).all() for parameter in runner.module[MODULE_ID].parameters())


def test_older_weights_are_not_taken():
    runner = make_runner()
    for weights_seq_no, value, expected in ((3, 0.3, 0.3), (2, 0.2, 0.3), (4, 0.4, 0.4), (0, 0.5, 0.5)):
        state = {COMPONENT_RL_MODULE: weights_filled_with(runner, value), WEIGHTS_SEQ_NO: weights_seq_no}
        runner.set_state(state)
        assert holds(runner, np.float32(expected))
    assert runner.get_state()[WEIGHTS_SEQ_NO] == 4


def test_newer_weights_are_pulled_from_a_state_server(monkeypatch):
    """IMPALA and APPO do not push weights to runners: they serve them."""
    runner = make_runner()
    served = {COMPONENT_RL_MODULE: weights_filled_with(runner, 0.0), WEIGHTS_SEQ_NO: 7}

    class Server:
        class pull_if_newer:
            @staticmethod
            def remote(weights_seq_no):
                return served if weights_seq_no < 7 else None

    monkeypatch.setattr(ray, "get", lambda result: result)
    runner._env_runner_state_server = Server
    runner.sample()
    assert holds(runner, 0.0)
    assert runner.get_state()[WEIGHTS_SEQ_NO] == 7
    runner.sample()


def test_the_logits_are_kept_only_for_a_loss_with_a_kl_term():
    assert make_runner().sample()[0].dist_inputs is None
    config = build_algorithm_config(SMALL).training(use_kl_loss=True)
    (pack,) = BatchedEnvRunner(config=config, worker_index=0).sample()
    assert pack.dist_inputs.shape == (*pack.orders.shape[:-1], 14 + 6)
