"""Any observation space under RLlib. Ray need not run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector.utils import batch_space
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import TARGET_NETWORK_ACTION_DIST_INPUTS
from ray.rllib.core.rl_module.rl_module import RLModule, RLModuleSpec
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from torch import Tensor
from torch.testing import assert_close

from perceiver_policy.config import ConfigError
from perceiver_policy.model import PerceiverIO
from perceiver_policy.rl_torso import PerceiverTorsoRLModule
from perceiver_policy.spaces import SpaceError
from perceiver_policy.transfer_core import CoreError

spaces = gym.spaces
OBSERVATION = spaces.Dict(
    {
        "camera": spaces.Box(0, 255, (5, 5, 3), np.uint8),
        "body": spaces.Tuple((spaces.Box(-1, 1, (3,)), spaces.Discrete(4))),
        "lamps": spaces.MultiBinary(2),
    }
)
TINY = {
    "input": {"num_channels": 40, "num_hidden_channels": 8},
    "encoder": {"num_latents": 3, "num_latent_channels": 8},
    "decoder": {},
    "num_query_channels": 8,
    "num_hidden_channels": 8,
}
BATCH = 6


def make_module(
    observation: gym.Space = OBSERVATION, action: gym.Space | None = None, **model_config: Any
) -> PerceiverTorsoRLModule:
    torch.manual_seed(0)
    return PerceiverTorsoRLModule(
        observation_space=observation,
        action_space=spaces.Discrete(5) if action is None else action,
        inference_only=False,
        model_config=TINY | {"initial_policy_scale": 1.0} | model_config,
    )


def nested(value: Any, change: Any) -> Any:
    if isinstance(value, dict):
        return {key: nested(item, change) for key, item in value.items()}
    return tuple(nested(item, change) for item in value) if isinstance(value, tuple) else change(value)


@pytest.fixture
def batch() -> dict[str, Any]:
    space = batch_space(OBSERVATION, BATCH)
    space.seed(0)
    return {Columns.OBS: nested(space.sample(), torch.as_tensor)}


def test_training_sees_what_was_explored(batch: dict[str, Any]) -> None:
    module = make_module()
    trained = module.forward_train(batch)
    for forward in (module.forward_exploration, module.forward_inference):
        logits = forward(batch)[Columns.ACTION_DIST_INPUTS]
        assert_close(logits, trained[Columns.ACTION_DIST_INPUTS])
        assert logits.shape == (BATCH, 5)
        assert not logits.requires_grad
    answers = module.model(module.read(batch[Columns.OBS]))
    assert_close(trained[Columns.ACTION_DIST_INPUTS], answers["policy"])
    for values in (module.compute_values(batch), module.compute_values(batch, trained[Columns.EMBEDDINGS])):
        assert_close(values, answers["value"].squeeze(-1))
    assert answers["policy"].std(0).min() > 1e-3  # it does depend on the observation


def test_every_weight_learns(batch: dict[str, Any]) -> None:
    module = make_module()
    output = module.forward_train(batch)
    (output[Columns.ACTION_DIST_INPUTS].square().sum() + output[Columns.EMBEDDINGS].sum()).backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_observations_do_not_meet_in_a_batch(batch: dict[str, Any]) -> None:
    module = make_module()
    whole = module.forward_train(batch)
    for row in range(BATCH):
        alone = {Columns.OBS: nested(batch[Columns.OBS], lambda leaf, row=row: leaf[row : row + 1])}
        for key, tensor in module.forward_train(alone).items():
            assert_close(tensor[0], whole[key][row])


def test_policies_begin_near_uniform(batch: dict[str, Any]) -> None:
    logits = make_module(initial_policy_scale=0.01).forward_train(batch)[Columns.ACTION_DIST_INPUTS]
    assert 0 < logits.abs().max() < 0.05


@pytest.mark.parametrize(
    ("action", "num_inputs"),
    [
        (spaces.Discrete(3), 3),
        (spaces.MultiDiscrete([3, 2]), 5),
        (spaces.Box(-2, 2, (3,)), 6),
    ],
)
def test_action_spaces(action: gym.Space, num_inputs: int, batch: dict[str, Any]) -> None:
    module = make_module(action=action)
    logits = module.forward_train(batch)[Columns.ACTION_DIST_INPUTS]
    assert logits.shape == (BATCH, num_inputs)
    distribution = module.get_train_action_dist_cls().from_logits(logits)
    drawn = distribution.sample()
    assert drawn.shape == (BATCH, *action.shape)
    if isinstance(action, spaces.Box):  # mean and deviation of each; RLlib's connectors keep to the bounds
        gaussian = torch.distributions.Normal(logits[:, :3], logits[:, 3:].exp())
        expected: Tensor = gaussian.log_prob(drawn).sum(-1)
    else:
        parts = logits.split([3] if drawn.dim() == 1 else [3, 2], -1)
        chosen = drawn.reshape(BATCH, -1).unbind(-1)
        expected = sum(
            part.log_softmax(-1).gather(-1, choice[:, None]).squeeze(-1)
            for part, choice in zip(parts, chosen, strict=True)
        )
        assert all(action.contains(row.numpy()) for row in drawn)
    assert_close(distribution.logp(drawn), expected)
    assert distribution.entropy().shape == (BATCH,)


@pytest.mark.parametrize(
    "action",
    [
        spaces.Discrete(3, start=1),
        spaces.MultiDiscrete([[2, 3]]),
        spaces.MultiDiscrete([2, 3], start=[0, 1]),
        spaces.Box(0, 1, (2, 2)),
        spaces.Dict(a=spaces.Discrete(2)),
    ],
)
def test_other_action_spaces_are_refused(action: gym.Space) -> None:
    with pytest.raises(SpaceError, match=r"the action space is .*TransformAction"):
        make_module(action=action)


def test_bad_configurations_are_refused() -> None:
    with pytest.raises(SpaceError, match="observation/mission is a Text space"):
        make_module(spaces.Dict(mission=spaces.Text(5)))
    with pytest.raises(ConfigError, match=r"no key 'num_latent'; did you mean"):
        make_module(encoder={"num_latent": 3})
    with pytest.raises(CoreError, match=r"no part 'block'"):
        make_module(freeze=["block"])
    with pytest.raises(ConfigError, match=r"num_cross_attention_heads is 3"):
        make_module(decoder={"num_cross_attention_heads": 3})


def test_a_core_is_adopted(tmp_path: Path) -> None:
    """From a torso of other observations, with its configuration; the rest is new."""
    source = make_module(spaces.Box(0, 1, (9,)), encoder=TINY["encoder"] | {"num_blocks": 2})
    source.model.save_pretrained(tmp_path / "core")
    config = {key: value for key, value in TINY.items() if key != "encoder"}
    config |= {"core": str(tmp_path / "core"), "freeze": ["blocks"]}
    torch.manual_seed(1)
    module = PerceiverTorsoRLModule(
        observation_space=OBSERVATION, action_space=spaces.Discrete(2), model_config=config
    )
    assert module.model.config.encoder == source.model.config.encoder
    assert module.taken is not None
    mine, theirs = module.model.state_dict(), source.model.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in module.taken.parameters)
    assert len(module.taken.parameters) > 10
    for name, parameter in module.model.named_parameters():
        assert parameter.requires_grad != name.startswith("encoder.blocks.")
    with pytest.raises(CoreError, match=r"encoder.latents is \(3, 8\) there and \(4, 8\) here"):
        make_module(core=str(tmp_path / "core"), encoder={"num_latents": 4, "num_latent_channels": 8})
    with pytest.raises(CoreError, match="no core at"):
        make_module(core=str(tmp_path / "gone"))


def test_checkpoints_outlive_the_core_they_began_with(tmp_path: Path, batch: dict[str, Any]) -> None:
    make_module(spaces.Box(0, 1, (9,))).model.save_pretrained(tmp_path / "core")
    module = make_module(core=str(tmp_path / "core"), freeze=["latents"])
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.01)
    module.save_to_path(tmp_path / "checkpoint")
    shutil.rmtree(tmp_path / "core")
    restored = RLModule.from_checkpoint(tmp_path / "checkpoint")
    assert_close(restored.forward_inference(batch), module.forward_inference(batch), rtol=0, atol=0)
    assert not restored.model.encoder.latents.requires_grad


def test_the_model_alone_is_the_policy(tmp_path: Path, batch: dict[str, Any]) -> None:
    module = make_module()
    module.model.save_pretrained(tmp_path / "model")
    model = PerceiverIO.from_pretrained(tmp_path / "model")
    logits = module.forward_inference(batch)[Columns.ACTION_DIST_INPUTS]
    assert_close(model(module.read(batch[Columns.OBS]))["policy"], logits)


def test_target_networks_lag_behind(batch: dict[str, Any]) -> None:
    """What APPO asks of a module; those that only act have none."""
    module = make_module()
    acting = set(module.get_state())
    module.make_target_networks()
    ((main, target),) = module.get_target_network_pairs()
    assert main is module.model
    assert not any(parameter.requires_grad for parameter in target.parameters())
    before = module.forward_inference(batch)[Columns.ACTION_DIST_INPUTS]
    with torch.no_grad():
        for parameter in main.parameters():
            parameter.add_(0.1)
    assert_close(module.forward_target(batch)[TARGET_NETWORK_ACTION_DIST_INPUTS], before)
    assert not torch.allclose(module.forward_inference(batch)[Columns.ACTION_DIST_INPUTS], before)
    assert set(module.get_state(inference_only=True)) == acting


class Signs(gym.Env):
    """A picture and a number to be agreed with: the action pays if it is the number's. Four steps."""

    observation_space = OBSERVATION
    action_space = spaces.Discrete(4)

    def __init__(self, config: Any = None) -> None:
        self.observation_space.seed(0)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        self.t, self.seen = 0, self.observation_space.sample()
        return self.seen, {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict]:
        reward = float(action == self.seen["body"][1])
        self.t, self.seen = self.t + 1, self.observation_space.sample()
        return self.seen, reward, self.t == 4, False, {}


@pytest.mark.parametrize("env", [Signs, "CartPole-v1", "Pendulum-v1"])
def test_stock_ppo_learns_from_the_stock_runner(env: Any, tmp_path: Path) -> None:
    """Anyone's config, with a core and gradients clipped; what is frozen stays."""
    make_module(spaces.Box(0, 1, (9,))).model.save_pretrained(tmp_path / "core")
    model = TINY | {"core": str(tmp_path / "core"), "freeze": ["latents", "blocks"]}
    config = (
        PPOConfig()
        .environment(env)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=2, rollout_fragment_length=16)
        .rl_module(rl_module_spec=RLModuleSpec(module_class=PerceiverTorsoRLModule, model_config=model))
        .training(
            train_batch_size_per_learner=32, minibatch_size=16, num_epochs=1, grad_clip=0.5, vf_clip_param=1e6
        )
    )
    runner = SingleAgentEnvRunner(config=config, worker_index=0)
    spec = config.get_multi_rl_module_spec(spaces=runner.get_spaces())
    learner = PPOTorchLearner(config=config, module_spec=spec)
    learner.build()
    module = learner.module[DEFAULT_MODULE_ID].unwrapped()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    results = learner.update(episodes=runner.sample(), num_epochs=1, minibatch_size=16)
    assert np.isfinite(float(results[DEFAULT_MODULE_ID]["total_loss"].peek()))
    changed = {name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])}
    assert not {
        name for name in changed if name.startswith(("model.encoder.latents", "model.encoder.blocks."))
    }
    for part in (
        "input.",
        "encoder.cross_attentions.",
        "query.",
        "decoder.",
        "head.mlps.policy.",
        "head.mlps.value.",
    ):
        assert any(name.startswith(f"model.{part}") for name in changed), part
    runner.stop()
