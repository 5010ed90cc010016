"""Sampling and training beside the stock path and a loop without RLlib. No test says how fast anything is."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from training.benchmark import rollout
from training.benchmark.raw_ppo import RawPPO, Rollout
from training.rl import TrainConfig, build_algorithm_config
from training.rl.learner import OrderPPOLearner
from training.rl.pack import RolloutPack
from training.rl.rollout import MODULE_ID, BatchedEnvRunner

SMALL = TrainConfig(
    num_battles=8,
    rollout_steps=32,
    minibatch_size=64,
    num_epochs=2,
    swap_sides=False,
    max_env_steps=None,
    model_overrides=("encoder.num_latents=2", "encoder.num_latent_channels=8", "unit_input.num_channels=8"),
)


def as_rollout(pack: RolloutPack, last_values: np.ndarray) -> Rollout:
    return Rollout(
        {key: torch.from_numpy(array) for key, array in pack.observations.items()},
        orders=torch.from_numpy(pack.orders),
        log_probs=torch.from_numpy(pack.log_probs),
        values=torch.from_numpy(np.concatenate([pack.values, last_values[None]])),
        rewards=torch.from_numpy(pack.rewards),
        dones=torch.from_numpy(pack.dones),
    )


@pytest.fixture
def ours() -> tuple[OrderPPOLearner, RolloutPack]:
    config = build_algorithm_config(SMALL)
    runner = BatchedEnvRunner(config=config, worker_index=0)
    learner = OrderPPOLearner(
        config=config, module_spec=config.get_multi_rl_module_spec(spaces=runner.get_spaces())
    )
    learner.build()
    runner.module.set_state(learner.module.get_state())
    (pack,) = runner.sample()
    assert pack.dones.any()
    return learner, pack


def test_the_loop_without_rllib_learns_the_same(ours, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rollout in the same minibatches: the same weights after eight steps, which move by a hundred
    times more than they differ."""
    learner, pack = ours
    loop = RawPPO(SMALL, copy.deepcopy(learner.module[MODULE_ID].policy))
    before = copy.deepcopy(loop.policy.state_dict())
    last = {key: torch.from_numpy(array[-1]) for key, array in pack.observations.items()}
    with torch.no_grad():
        values = loop.policy.value(last).numpy()

    orders = [torch.randperm(len(pack)) for _ in range(SMALL.num_epochs)]
    drawn = iter(orders)
    monkeypatch.setattr(torch, "randperm", lambda n: next(drawn))
    learner.update(episodes=[pack], num_epochs=SMALL.num_epochs, minibatch_size=SMALL.minibatch_size)
    num_steps, num_battles = pack.rewards.shape
    # Ours lays a battle's steps side by side, the loop a step's battles.
    drawn = iter([order % num_steps * num_battles + order // num_steps for order in orders])
    loop.learn(as_rollout(pack, values))

    learned = learner.module[MODULE_ID].policy.state_dict()
    moved = max(float((learned[key] - tensor).abs().max()) for key, tensor in before.items())
    assert moved > 1e-3
    for key, tensor in loop.policy.state_dict().items():
        torch.testing.assert_close(tensor, learned[key], rtol=0, atol=1e-5, msg=key)


def test_a_rollout_of_the_loop_is_one() -> None:
    """What it kept is what its policy makes of what it saw; and it goes on where it stopped."""
    torch.manual_seed(0)
    loop = RawPPO(SMALL)
    first = copy.deepcopy(loop.sample())
    rows = {key: tensor[:-1].flatten(0, 1) for key, tensor in first.observations.items()}
    with torch.no_grad():
        given = loop.policy.evaluate_orders(rows, first.orders.flatten(0, 1))
    torch.testing.assert_close(given.log_prob, first.log_probs.flatten(0, 1), rtol=0, atol=1e-5)
    torch.testing.assert_close(given.value, first.values[:-1].flatten(), rtol=0, atol=1e-5)
    assert first.dones.any()
    assert first.rewards.any()
    second = loop.sample()
    for key, tensor in second.observations.items():
        assert torch.equal(tensor[0], first.observations[key][-1]), key


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("control", "unit"),
        ("swap_sides", None),
        ("per_unit_ratio", False),
        ("normalize_values", True),
        ("model_overrides", ("memory=true",)),
    ],
)
def test_what_the_loop_has_not(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{name} is .*the raw loop has"):
        RawPPO(replace(SMALL, **{name: value}))


def test_rows_beside_each_rival() -> None:
    measured = {"ours": [10.0, 20.0, 30.0], "stock": [2.0, 2.0, 2.0], "raw-torch": [25.0, 25.0, 25.0]}
    made = list(rollout.rows("rollout/3m/sampling", measured, 3, "it"))
    assert [(r.name, r.unit, r.rival_name, r.ours, r.rival, r.ratio) for r in made] == [
        ("rollout/3m/sampling", "agent steps/s", "stock", 60.0, 6.0, 10.0),
        ("rollout/3m/sampling", "agent steps/s", "raw-torch", 60.0, 75.0, 0.8),
        ("rollout/3m/sampling/env_steps", "env steps/s", "stock", 20.0, 2.0, 10.0),
        ("rollout/3m/sampling/env_steps", "env steps/s", "raw-torch", 20.0, 25.0, 0.8),
    ]


def test_the_best_number_of_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what it samples; more are not tried once it is clearly slower."""
    speed, tried = {4: 10.0, 8: 20.0, 16: 15.0, 32: 99.0}, []
    monkeypatch.setattr(rollout, "stock_config", lambda config, number: number)
    monkeypatch.setattr(rollout, "built", _given)
    monkeypatch.setattr(rollout, "stock", lambda number: rollout.Side(lambda: number, None))
    monkeypatch.setattr(rollout, "rates", lambda work, **_: [tried.append(work()) or speed[work()]])
    assert rollout.best_stock(SMALL, (4, 8, 16, 32), 1.0) == 8
    assert tried == [4, 8, 16]


def test_the_stock_path_shares_a_rollout_evenly() -> None:
    with pytest.raises(ValueError, match="num_envs is 7; a rollout of 256 steps"):
        rollout.stock_config(SMALL, 7)


class _given:
    """A context manager of what it is given."""

    def __init__(self, what: object) -> None:
        self.what = what

    def __enter__(self) -> object:
        return self.what

    def __exit__(self, *_: object) -> None:
        return None


@pytest.mark.parametrize("control", ["team", "unit"])
def test_all_sides_are_measured(control: str) -> None:
    small = replace(SMALL, num_battles=4, rollout_steps=8, minibatch_size=16, control=control)
    made = list(rollout.measure("it", configs=[small], num_envs=(2,), seconds=0.001, repeats=1))
    prefix = "rollout/3m" if control == "team" else "rollout/3m/unit_control"
    rivals = ["stock", "raw-torch"] if control == "team" else ["stock"]
    assert (made[0].name, made[0].unit, made[0].ours) == (f"{prefix}/stock", "environments", 2)
    assert [(r.name, r.unit, r.rival_name) for r in made[1:]] == [
        (f"{prefix}/{what}{suffix}", unit, rival)
        for what in ("sampling", "training")
        for suffix, unit in (("", "agent steps/s"), ("/env_steps", "env steps/s"))
        for rival in rivals
    ]
    assert all(r.ours > 0 and r.rival and r.ratio for r in made[1:])
    json.dumps([r.to_dict() for r in made], allow_nan=False)
