"""Running statistics of returns against hand computation, and what they leave as it was. Ray need not run."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core import COMPONENT_RL_MODULE
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.rllib.evaluation.postprocessing import Postprocessing

from envs.battle.rllib_env import BattleMultiAgentEnv
from perceiver_policy import UnitSetPolicy, UnitSetPolicyConfig
from perceiver_policy.rl_module import PerceiverRLModule
from training.rl.algorithms import build_algorithm_config
from training.rl.config import TrainConfig
from training.rl.learner import OrderPPOLearner
from training.rl.rollout import MODULE_ID, BatchedEnvRunner
from training.rl.value_normalisation import MIN_STD, STEP_SIZE, sums, update_statistics

SMALL = TrainConfig(
    num_battles=8,
    rollout_steps=30,
    minibatch_size=60,
    normalize_values=True,
    model_overrides=("encoder.num_latents=2", "encoder.num_latent_channels=8", "unit_input.num_channels=8"),
)
TARGETS = Postprocessing.VALUE_TARGETS


def make(**changes) -> tuple[BatchedEnvRunner, OrderPPOLearner]:
    """A runner and a learner with the same weights."""
    config = build_algorithm_config(dataclasses.replace(SMALL, **changes))
    runner = BatchedEnvRunner(config=config, worker_index=0)
    learner = OrderPPOLearner(
        config=config, module_spec=config.get_multi_rl_module_spec(spaces=runner.get_spaces())
    )
    learner.build()
    learner.module.set_state(runner.module.get_state())
    return runner, learner


def batch_of(learner: OrderPPOLearner, packs: list) -> dict:
    return learner._learner_connector(rl_module=learner.module, batch={}, episodes=packs, shared_data={})[
        MODULE_ID
    ]


def make_critic() -> torch.nn.Module:
    return UnitSetPolicy(UnitSetPolicyConfig()).double().critic


def test_statistics_by_hand():
    """After each batch: averages over all batches, the i-th weighted by (1 − β)^(t − i)."""
    generator = np.random.default_rng(0)
    critic = make_critic()
    means, squares = [], []
    for t, (shift, scale) in enumerate([(40.0, 3.0), (-2.0, 0.5), (7.0, 20.0), (7.0, 1.0)]):
        returns = shift + scale * generator.standard_normal((50, 3))
        mask = generator.random((50, 3)) < 0.6
        update_statistics(critic, sums(torch.from_numpy(returns), torch.from_numpy(mask)))
        means.append(returns[mask].mean())
        squares.append((returns[mask] ** 2).mean())
        weights = (1 - STEP_SIZE) ** np.arange(t, -1, -1)
        mean = np.average(means, weights=weights)
        std = math.sqrt(np.average(squares, weights=weights) - mean**2)
        assert critic.mean.item() == pytest.approx(mean, rel=1e-12)
        assert critic.std.item() == pytest.approx(std, rel=1e-10)
        assert critic.num_updates == t + 1


def test_returns_that_do_not_vary():
    critic = make_critic()
    update_statistics(critic, sums(torch.full((9,), 2.5)))
    assert (critic.mean.item(), critic.std.item()) == pytest.approx((2.5, MIN_STD))


@pytest.mark.parametrize("returns", [[], [1.0, math.nan], [math.inf]])
def test_returns_that_teach_nothing(returns):
    critic = make_critic()
    before = copy.deepcopy(critic.state_dict())
    update_statistics(critic, sums(torch.tensor(returns)))
    for name, tensor in critic.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


@pytest.mark.parametrize("control", ["team", "unit"])
@pytest.mark.parametrize("critic", ["observation", "state"])
def test_a_train_batch_moves_them_and_no_value(control, critic):
    runner, learner = make(control=control, model_overrides=(*SMALL.model_overrides, f"critic={critic}"))
    module = learner.module[MODULE_ID]
    packs = runner.sample()
    observation = {key: torch.from_numpy(packs[0].rows(key, slice(-1))) for key in packs[0].observations}
    batch = batch_of(learner, packs)
    chosen = batch[TARGETS][batch[Columns.LOSS_MASK]].double()
    critic = module.policy.critic
    assert critic.num_updates == 1
    assert critic.mean.item() == pytest.approx(chosen.mean().item(), rel=1e-5)
    assert critic.std.item() == pytest.approx(chosen.std(correction=0).item(), rel=1e-5)
    values = module.compute_values({Columns.OBS: observation})
    np.testing.assert_allclose(values.detach().numpy(), packs[0].values.ravel(), atol=1e-5)


def losses(learner: OrderPPOLearner, batch: dict) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """The loss's terms, and its gradients."""
    module = learner.module[MODULE_ID]
    loss = learner.compute_loss_for_module(
        module_id=MODULE_ID,
        config=learner.config.get_config_for_module(MODULE_ID),
        batch=batch,
        fwd_out=module.forward_train(batch),
    )
    parameters = dict(module.named_parameters())
    gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    terms = {
        name: learner.metrics.peek((MODULE_ID, name)).item() for name in ("policy_loss", "vf_loss", "entropy")
    }
    return terms | {"total": loss.item()}, dict(zip(parameters, gradients, strict=True))


@pytest.mark.parametrize("changes", [{}, {"per_unit_ratio": False}, {"control": "unit"}])
def test_the_loss_is_of_normalised_values(changes):
    """In double precision: equal to the plain loss with a value term weighted by 1 / σ². The batch as such
    stays in the units of the reward."""
    runner, learner = make(**changes)
    batch = batch_of(learner, runner.sample())
    module = learner.module[MODULE_ID].double()
    batch = {
        key: value.double() if torch.is_tensor(value) and value.is_floating_point() else value
        for key, value in batch.items()
    }
    batch[Columns.OBS] = {
        key: value.double() if value.is_floating_point() else value
        for key, value in batch[Columns.OBS].items()
    }
    critic, targets = module.policy.critic, batch[TARGETS].clone()
    assert critic.std < 0.9 or critic.std > 1.1  # so that a forgotten σ shows
    normalised, gradients = losses(learner, batch)
    torch.testing.assert_close(batch[TARGETS], targets, rtol=0, atol=0)
    values = module.compute_values({Columns.OBS: batch[Columns.OBS]})
    mask, std = batch[Columns.LOSS_MASK], critic.std.item()
    errors = ((values[:, None] if mask.ndim == 2 else values) - targets)[mask] / std
    assert normalised["vf_loss"] == pytest.approx(errors.square().mean().item(), rel=1e-10)

    module.normalize_values = False
    plain, plain_gradients = losses(learner, batch)
    for name in ("policy_loss", "entropy"):
        assert normalised[name] == pytest.approx(plain[name], rel=1e-12)
    assert normalised["vf_loss"] == pytest.approx(plain["vf_loss"] / std**2, rel=1e-10)
    weight = learner.config.vf_loss_coeff
    difference = weight * (plain["vf_loss"] - normalised["vf_loss"])
    assert plain["total"] - normalised["total"] == pytest.approx(difference, rel=1e-9)
    # The gradient that only the value loss has.
    name = "policy.observation_critic.head.2.bias"
    torch.testing.assert_close(gradients[name], plain_gradients[name] / std**2)


def test_an_update_keeps_them_for_the_runner():
    runner, learner = make()
    for expected in (1, 2):
        learner.update(episodes=runner.sample(), num_epochs=1, minibatch_size=60)
        runner.set_state(
            {COMPONENT_RL_MODULE: learner.get_state(components="rl_module", inference_only=True)["rl_module"]}
        )
        ours, theirs = learner.module[MODULE_ID].policy.critic, runner.module[MODULE_ID].policy.critic
        assert theirs.num_updates == expected
        for name in ("mean", "std"):
            assert getattr(ours, name) == getattr(theirs, name) != getattr(make_critic(), name)
    # Values in a rollout are the learner's, in the units of the reward.
    (pack,) = runner.sample()
    observation = {key: torch.from_numpy(pack.rows(key, slice(-1))) for key in pack.observations}
    values = learner.module[MODULE_ID].compute_values({Columns.OBS: observation})
    np.testing.assert_allclose(values.detach().numpy(), pack.values.ravel(), atol=1e-4)


def test_weights_from_before_there_were_any_load():
    """As RLlib's checkpoints hold them: a runner refuses states that lack anything else."""
    runner, learner = make()
    learner.update(episodes=runner.sample(), num_epochs=1, minibatch_size=60)
    critic = learner.module[MODULE_ID].policy.critic
    assert critic.num_updates == 1
    state = learner.get_state(components="rl_module", inference_only=True)["rl_module"]
    older = {
        MODULE_ID: {
            name: value
            for name, value in state[MODULE_ID].items()
            if name.rpartition(".")[2] not in critic.initial_statistics()
        }
    }
    assert len(older[MODULE_ID]) == len(state[MODULE_ID]) - 3
    for module in (runner.module, learner.module):
        module.set_state(older)
        critic = module[MODULE_ID].policy.critic
        assert (critic.mean, critic.std, critic.num_updates) == (0.0, 1.0, 0)


def test_without_the_option_nothing_moves():
    runner, learner = make(normalize_values=False)
    learner.update(episodes=runner.sample(), num_epochs=1, minibatch_size=60)
    critic = learner.module[MODULE_ID].policy.critic
    assert (critic.mean, critic.std, critic.num_updates) == (0.0, 1.0, 0)


def test_the_stock_path():
    """Episodes under RLlib's own runner and connectors, with a ratio for each unit."""
    model = {
        "unit_input": {"num_channels": 8, "num_hidden_channels": 8},
        "encoder": {"num_latents": 2, "num_latent_channels": 8},
        "per_unit_ratio": True,
        "normalize_values": True,
    }
    config = (
        PPOConfig()
        .environment(BattleMultiAgentEnv, env_config={"scenario": "3m"}, disable_env_checking=True)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=2, rollout_fragment_length=30)
        .multi_agent(policies={MODULE_ID}, policy_mapping_fn=lambda *_, **__: MODULE_ID)
        .rl_module(rl_module_spec=RLModuleSpec(module_class=PerceiverRLModule, model_config=model))
        .learners(learner_class=OrderPPOLearner)
        .training(
            train_batch_size_per_learner=60, minibatch_size=20, num_epochs=1, vf_clip_param=float("inf")
        )
    )
    runner = MultiAgentEnvRunner(config=config, worker_index=0)
    learner = OrderPPOLearner(
        config=config, module_spec=config.get_multi_rl_module_spec(spaces=runner.get_spaces())
    )
    learner.build()
    batch = batch_of(learner, runner.sample())
    mask = batch[Columns.LOSS_MASK]
    assert not mask.all()  # the steps that RLlib adds for bootstrapping do not count
    chosen = batch[TARGETS][mask].double()
    critic = learner.module[MODULE_ID].policy.critic
    assert critic.mean.item() == pytest.approx(chosen.mean().item(), rel=1e-5)
    assert critic.std.item() == pytest.approx(chosen.std(correction=0).item(), rel=1e-5)
    values = learner.module[MODULE_ID].compute_values(batch)
    errors = ((values[:, None] - batch[TARGETS])[mask] / critic.std).square().mean()
    assert losses(learner, batch)[0]["vf_loss"] == pytest.approx(errors.item(), rel=1e-4)


def learner_process(rank: int, folder: str) -> None:
    """One of two learners: its part of the returns in, its statistics out, as a file."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    critic = make_critic()
    for returns in parts(rank):
        update_statistics(critic, sums(returns))
    torch.save({"mean": critic.mean, "std": critic.std}, f"{folder}/{rank}")
    torch.distributed.destroy_process_group()


def parts(rank: int) -> list[torch.Tensor]:
    """Two batches of a learner; their sizes differ between learners."""
    generator = torch.Generator().manual_seed(rank)
    return [rank * 5.0 + torch.randn(20 + rank, generator=generator) for _ in range(2)]


@pytest.mark.slow
def test_several_learners_have_equal_statistics(tmp_path):
    torch.multiprocessing.spawn(learner_process, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / str(rank), weights_only=True) for rank in (0, 1))
    together = make_critic()
    for returns in zip(parts(0), parts(1), strict=True):
        update_statistics(together, sums(torch.cat(returns)))
    for name in ("mean", "std"):
        assert torch.equal(first[name], second[name])
        assert first[name].item() == pytest.approx(getattr(together, name).item(), rel=1e-12)
