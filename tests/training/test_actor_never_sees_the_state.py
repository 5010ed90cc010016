"""What a unit cannot see moves none of its orders, whatever the critic reads, on every way to an order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns
from torch import Tensor

from agents.learned import LearnedAgent
from envs.battle.batch import BattleBatch
from envs.unit_set import ACTOR_KEYS, random_orders
from perceiver_policy.pretrained import save_policy
from perceiver_policy.rl_module import PerceiverRLModule
from tests.envs.battles import scramble_unseen

BATTLES, STEPS = 4, 7
CRITICS = pytest.mark.parametrize("critic", ["observation", "state"])


def battles() -> tuple[BattleBatch, BattleBatch, list[int]]:
    """The same battles twice, under unit control, but for what one unit of each does not see; that unit."""
    pair = [BattleBatch("2s3z", BATTLES, control="unit", with_state=True, seed=3) for _ in range(2)]
    for batch in pair:
        generator = np.random.default_rng(0)
        for _ in range(STEPS):
            batch.step(random_orders(batch.observations[0], generator).reshape(BATTLES, -1, 2))
    generator, watchers, changes = np.random.default_rng(1), [], 0
    for b in range(BATTLES):
        (living,) = np.nonzero(pair[0].observations[0]["controlled_mask"][b, :, 0])
        watchers.append(int(generator.choice(living)))
        changes += scramble_unseen(pair[1], b, watchers[-1], generator)
    assert changes >= 4
    assert not np.array_equal(*(batch.observations[0]["state_units"] for batch in pair))
    return *pair, watchers


def make_module(batch: BattleBatch, critic: str, **model: object) -> PerceiverRLModule:
    """With logits far from uniform, in float32 as in training."""
    torch.manual_seed(0)
    module = PerceiverRLModule(
        observation_space=batch.observation_space(),
        action_space=batch.action_space(),
        model_config={"critic": critic, "per_unit_ratio": True, **model},
    )
    with torch.no_grad():
        for parameter in module.policy.order_head.parameters():
            parameter.normal_(std=0.4)
    return module.eval()


def rows(batch: BattleBatch) -> dict[str, Tensor]:
    """What all units see, (B * n, ...)."""
    return {
        key: torch.tensor(np.array(array).reshape(-1, *array.shape[2:]))
        for key, array in batch.observations[0].items()
    }


def of_watchers(columns: dict[str, Tensor], watchers: list[int]) -> dict[str, Tensor]:
    """The rows of the watchers, one a battle."""
    return {
        key: column.unflatten(0, (BATTLES, -1))[range(BATTLES), watchers] for key, column in columns.items()
    }


@CRITICS
@pytest.mark.parametrize("forward", ["exploration", "inference", "train"])
def test_the_modules_passes(critic: str, forward: str) -> None:
    """Orders, their log-probabilities and logits: bit for bit the same. Values are not, where the critic
    reads the state; so the hidden change was there to be seen."""
    plain, changed, watchers = battles()
    module = make_module(plain, critic)
    outputs = []
    for batch in (plain, changed):
        torch.manual_seed(5)  # the same draws
        given = {Columns.OBS: rows(batch)}
        if forward == "train":
            orders = random_orders(plain.observations[0], np.random.default_rng(2))
            given[Columns.ACTIONS] = torch.from_numpy(orders.reshape(-1, 1, 2))
        output = getattr(module, f"forward_{forward}")(given)
        outputs.append(of_watchers(output, watchers))
    values = {Columns.VF_PREDS, Columns.EMBEDDINGS}
    for key in outputs[0].keys() - values:
        assert torch.equal(outputs[0][key], outputs[1][key]), key
    for key in outputs[0].keys() & values:
        assert torch.equal(outputs[0][key], outputs[1][key]) == (critic == "observation")
    assert forward == "inference" or outputs[0].keys() & values


@CRITICS
@pytest.mark.parametrize("deterministic", [True, False])
def test_the_exported_agent(critic: str, deterministic: bool, tmp_path) -> None:
    plain, changed, watchers = battles()
    save_policy(make_module(plain, critic).policy, tmp_path / "policy")
    orders = []
    for batch in (plain, changed):
        agent = LearnedAgent(tmp_path / "policy", deterministic=deterministic, seed=4)
        orders.append(agent.act(batch.observations[0])[range(BATTLES), watchers])
        acting = {key: batch.observations[0][key] for key in ACTOR_KEYS}  # the state is not even asked for
        again = LearnedAgent(tmp_path / "policy", deterministic=deterministic, seed=4)
        np.testing.assert_array_equal(again.act(acting)[range(BATTLES), watchers], orders[-1])
    np.testing.assert_array_equal(*orders)


@CRITICS
@pytest.mark.parametrize("memory", [False, True])
def test_no_gradient_reaches_back_to_what_is_hidden(
    critic: str, memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all logits, and with memory of those of the steps that follow, too."""
    # The same distance, with a gradient of 0 instead of NaN from a unit to itself.
    monkeypatch.setattr(torch, "hypot", lambda x, y: torch.linalg.vector_norm(torch.stack((x, y)), dim=0))
    batch = battles()[0]
    module = make_module(batch, critic, memory=memory)
    observation = rows(batch)
    hidden = ~observation["unit_mask"]
    for key in ("units", "state_units"):
        observation[key].requires_grad_()
    given = {Columns.OBS: observation}
    orders = torch.from_numpy(
        random_orders(batch.observations[0], np.random.default_rng(2)).reshape(-1, 1, 2)
    )
    if memory:  # the units' rows as sequences of two steps
        pairs = {key: tensor.unflatten(0, (-1, 2)) for key, tensor in observation.items()}
        state = torch.zeros(len(pairs["units"]), *module.get_initial_state()["latents"].shape)
        given = {Columns.OBS: pairs, Columns.STATE_IN: {"latents": state}}
        orders = orders.unflatten(0, (-1, 2))
    output = module.forward_train({**given, Columns.ACTIONS: orders})
    logits = output[Columns.ACTION_DIST_INPUTS]
    weights = torch.randn_like(logits) * (logits > -1e8)
    seen, state = torch.autograd.grad(
        (logits * weights).sum(),
        [observation["units"], observation["state_units"]],
        retain_graph=True,
        allow_unused=True,
    )
    assert state is None  # no path at all
    assert hidden.any()
    assert not seen[hidden].any()
    assert seen.isfinite().all()
    assert seen[~hidden].any()
    # The value's: the state's where it reads it, and of the rest only what is there.
    value = output[Columns.EMBEDDINGS].sum()
    seen, state = torch.autograd.grad(
        value, [observation["units"], observation["state_units"]], allow_unused=True
    )
    if critic == "state":
        assert seen is None
        assert state[observation["state_unit_mask"]].any()
        assert not state[~observation["state_unit_mask"]].any()  # the dead
    else:
        assert state is None
        assert not seen[hidden].any()


@CRITICS
def test_rows_that_are_masked_out_may_hold_anything(critic: str) -> None:
    """Also what cannot be told by a gradient: types, huge numbers, and all of the state."""
    batch = battles()[0]
    module, observation = make_module(batch, critic), rows(batch)
    disturbed = {key: tensor.clone() for key, tensor in observation.items()}
    hidden = ~observation["unit_mask"]
    disturbed["units"][hidden] = 1e4 * torch.randn(int(hidden.sum()), observation["units"].shape[-1])
    disturbed["unit_type"][hidden] = 7
    dead = ~observation["state_unit_mask"]
    value = module.compute_values({Columns.OBS: observation})
    disturbed["state_units"][dead], disturbed["state_unit_type"][dead] = 1e4, 7
    assert torch.equal(module.compute_values({Columns.OBS: disturbed}), value)
    disturbed["state_units"] = torch.randn_like(disturbed["state_units"])
    disturbed["state_unit_type"] = torch.randint(0, 20, disturbed["state_unit_type"].shape)
    disturbed["state_unit_mask"] = ~disturbed["state_unit_mask"]
    orders = random_orders(batch.observations[0], np.random.default_rng(2)).reshape(-1, 1, 2)
    logits = [
        module.forward_train({Columns.OBS: each, Columns.ACTIONS: torch.from_numpy(orders)})[
            Columns.ACTION_DIST_INPUTS
        ]
        for each in (observation, disturbed)
    ]
    assert torch.equal(*logits)
