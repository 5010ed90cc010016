"""The RLlib adapter says exactly what the policy says, in stock configs too."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.utils import update_target_network
from ray.rllib.core.rl_module.apis import TARGET_NETWORK_ACTION_DIST_INPUTS, TargetNetworkAPI
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from torch.distributions import Categorical, kl_divergence

from envs.unit_set import NUM_TARGET_VERBS, NUM_VERBS, action_space, observation_space
from perceiver_policy.config import ConfigError
from perceiver_policy.heads import categorical
from perceiver_policy.rl_module import OrderDistribution, PerceiverRLModule, policy_config

U, A, B = 5, 3, 16
TINY = {
    "unit_input": {"num_channels": 8, "num_hidden_channels": 8},
    "encoder": {"num_latents": 2, "num_latent_channels": 8},
}


def random_observation(rng: np.random.Generator, *batch: int, units: int = U, slots: int = A) -> dict:
    """Observations that follow the contract; the last slot commands nothing, the last row is padding."""
    unit_mask = np.ones((*batch, units), bool)
    unit_mask[..., -1] = False
    features = rng.normal(size=(*batch, units, 32)).astype(np.float32) * unit_mask[..., None]
    controlled_mask = np.ones((*batch, slots), bool)
    controlled_mask[..., -1] = slots == 1
    target_mask = (rng.random((*batch, slots, NUM_TARGET_VERBS, units)) < 0.5) & unit_mask[..., None, None, :]
    target_mask &= controlled_mask[..., None, None]
    verb_mask = rng.random((*batch, slots, NUM_VERBS)) < 0.5
    verb_mask[..., -NUM_TARGET_VERBS:] = target_mask.any(-1)
    verb_mask &= controlled_mask[..., None]
    verb_mask[..., 0] = True
    return {
        "units": features,
        "unit_type": rng.integers(0, 9, (*batch, units)) * unit_mask,
        "unit_mask": unit_mask,
        "controlled": np.broadcast_to(np.arange(slots), (*batch, slots)).copy(),
        "controlled_mask": controlled_mask,
        "verb_mask": verb_mask,
        "target_mask": target_mask,
        "scalars": rng.normal(size=(*batch, 6)).astype(np.float32),
    }


def make_module(**model_config) -> PerceiverRLModule:
    torch.manual_seed(0)
    return PerceiverRLModule(
        observation_space=observation_space(U, A, num_unit_types=9),
        action_space=action_space(U, A),
        inference_only=False,
        model_config=TINY | model_config,
    )


@pytest.fixture
def batch() -> dict:
    observation = random_observation(np.random.default_rng(0), B)
    return {Columns.OBS: {key: torch.from_numpy(array) for key, array in observation.items()}}


def test_logits_and_values_are_the_policys(batch):
    module = make_module()
    batch[Columns.ACTIONS] = module.forward_exploration(batch)[Columns.ACTIONS]
    output = module.forward_train(batch)
    evaluation = module.policy.evaluate_orders(batch[Columns.OBS], batch[Columns.ACTIONS])
    verb_logits, target_logits = output[Columns.ACTION_DIST_INPUTS].split([NUM_VERBS, U], -1)
    torch.testing.assert_close(verb_logits, evaluation.verb_logits, rtol=0, atol=0)
    torch.testing.assert_close(target_logits, evaluation.target_logits, rtol=0, atol=0)
    for values in (module.compute_values(batch), module.compute_values(batch, output[Columns.EMBEDDINGS])):
        torch.testing.assert_close(values, evaluation.value)
    distribution = module.get_train_action_dist_cls().from_logits(output[Columns.ACTION_DIST_INPUTS])
    torch.testing.assert_close(distribution.logp(batch[Columns.ACTIONS]), evaluation.log_prob.sum(-1))
    torch.testing.assert_close(distribution.entropy(), evaluation.entropy.sum(-1))


@pytest.mark.parametrize("per_unit_ratio", [False, True])
def test_ratio_with_unchanged_weights_is_one(batch, per_unit_ratio):
    module = make_module(per_unit_ratio=per_unit_ratio)
    sampled = module.forward_exploration(batch)
    output = module.forward_train(batch | {Columns.ACTIONS: sampled[Columns.ACTIONS]})
    distribution = module.get_train_action_dist_cls().from_logits(output[Columns.ACTION_DIST_INPUTS])
    log_prob = distribution.logp(sampled[Columns.ACTIONS])
    assert log_prob.shape == ((B, A) if per_unit_ratio else (B,))
    torch.testing.assert_close(log_prob, sampled[Columns.ACTION_LOGP], rtol=0, atol=1e-5)
    before = module.get_exploration_action_dist_cls().from_logits(sampled[Columns.ACTION_DIST_INPUTS])
    torch.testing.assert_close(before.kl(distribution), torch.zeros_like(log_prob), rtol=0, atol=1e-5)
    assert module.compute_values(batch, output[Columns.EMBEDDINGS]).shape == log_prob.shape


def test_slots_without_a_unit_are_certain(batch):
    sampled = make_module(per_unit_ratio=True).forward_exploration(batch)
    assert (sampled[Columns.ACTIONS][:, -1] == 0).all()
    assert (sampled[Columns.ACTION_LOGP][:, -1] == 0).all()


def test_inference_is_greedy(batch):
    module = make_module()
    orders = module.forward_inference(batch)[Columns.ACTIONS]
    torch.testing.assert_close(orders, module.policy.act(batch[Columns.OBS], deterministic=True).orders)


def test_distribution_against_torch():
    generator = torch.Generator().manual_seed(0)
    sizes = {"num_verbs": 3, "num_target_verbs": 1, "per_unit": True}
    logits, others = torch.randn(2, 6, 2, 3 + 4, generator=generator)
    distribution = OrderDistribution.from_logits(logits, **sizes)
    verb, target = (Categorical(logits=part) for part in logits.split([3, 4], -1))
    orders = torch.tensor([2, 3]).expand(6, 2, 2)
    log_prob = verb.log_prob(orders[..., 0]) + target.log_prob(orders[..., 1])
    torch.testing.assert_close(distribution.logp(orders), log_prob)
    torch.testing.assert_close(distribution.entropy(), verb.entropy() + target.entropy())
    other_verb, other_target = (Categorical(logits=part) for part in others.split([3, 4], -1))
    expected = kl_divergence(verb, other_verb) + kl_divergence(target, other_target)
    torch.testing.assert_close(distribution.kl(OrderDistribution.from_logits(others, **sizes)), expected)
    joint = OrderDistribution.from_logits(logits, **sizes | {"per_unit": False})
    torch.testing.assert_close(joint.logp(orders), distribution.logp(orders).sum(-1))


def test_masked_choices_count_nothing_and_nothing_underflows(batch, monkeypatch):
    """One implementation for drawing and for the loss: log-probabilities agree to the last bit."""
    module = make_module(per_unit_ratio=True)
    sampled = module.forward_exploration(batch)
    distribution = module.get_train_action_dist_cls().from_logits(sampled[Columns.ACTION_DIST_INPUTS])
    log_prob = distribution.logp(sampled[Columns.ACTIONS])
    torch.testing.assert_close(log_prob, sampled[Columns.ACTION_LOGP], rtol=0, atol=0)

    def refuse(*_, **__):
        raise AssertionError("exp of masked logits underflows, which is slow")

    monkeypatch.setattr(torch.Tensor, "log_softmax", refuse)
    assert (distribution.kl(distribution) == 0).all()
    assert (distribution.entropy()[:, -1] == 0).all()  # the slot that commands nothing


def test_masked_distributions_against_torch():
    """With masks, and where one side allows a single choice; gradients too."""
    generator = torch.Generator().manual_seed(0)
    allowed = torch.tensor([[True, True, False, True], [False, False, True, False]])
    p, q = (
        categorical.mask_logits(torch.randn(2, 4, generator=generator), allowed).requires_grad_()
        for _ in "pq"
    )
    ours, theirs = (
        categorical.kl_divergence(p, q),
        kl_divergence(Categorical(logits=p), Categorical(logits=q)),
    )
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(categorical.entropy(p), Categorical(logits=p).entropy())
    pairs = zip(
        torch.autograd.grad(ours.sum(), (p, q)), torch.autograd.grad(theirs.sum(), (p, q)), strict=True
    )
    for gradient, expected in pairs:
        torch.testing.assert_close(gradient, expected)


def test_target_networks_lag_behind(batch):
    """What APPO asks of a module."""
    module = make_module()
    batch[Columns.ACTIONS] = module.forward_exploration(batch)[Columns.ACTIONS]
    assert isinstance(module, TargetNetworkAPI)
    module.make_target_networks()
    ((main, target),) = module.get_target_network_pairs()
    assert main is module.policy
    assert not any(parameter.requires_grad for parameter in target.parameters())
    before = module.forward_train(batch)[Columns.ACTION_DIST_INPUTS].detach()
    torch.testing.assert_close(module.forward_target(batch)[TARGET_NETWORK_ACTION_DIST_INPUTS], before)
    with torch.no_grad():
        for parameter in main.parameters():
            parameter.add_(0.1)
    torch.testing.assert_close(module.forward_target(batch)[TARGET_NETWORK_ACTION_DIST_INPUTS], before)
    assert not torch.allclose(module.forward_train(batch)[Columns.ACTION_DIST_INPUTS], before)
    update_target_network(main_net=main, target_net=target, tau=1.0)
    now = module.forward_train(batch)[Columns.ACTION_DIST_INPUTS].detach()
    torch.testing.assert_close(module.forward_target(batch)[TARGET_NETWORK_ACTION_DIST_INPUTS], now)


def test_target_networks_are_not_sent_to_modules_that_only_act():
    module = make_module()
    names = set(module.get_state())
    module.make_target_networks()
    assert any(name.startswith("_target_policy.") for name in module.get_state())
    assert set(module.get_state(inference_only=True)) == names


def test_the_target_of_a_verb_without_one_is_ignored():
    logits = torch.tensor([[[0.0, 0.0, 0.0, 0.0, -1e9]]])  # the target logits of a verb without a target
    distribution = OrderDistribution.from_logits(logits, num_verbs=3, num_target_verbs=1)
    first, other = (distribution.logp(torch.tensor([[[1, row]]])) for row in (0, 1))
    torch.testing.assert_close(first, other)


def test_sampling_from_logits_is_refused():
    distribution = OrderDistribution.from_logits(torch.zeros(1, 1, 5), num_verbs=3, num_target_verbs=1)
    for draw in (distribution.sample, distribution.rsample, distribution.to_deterministic().sample):
        with pytest.raises(NotImplementedError, match="forward_exploration"):
            draw()


def test_sizes_come_from_the_spaces_and_must_be_theirs():
    spaces = observation_space(U, A, num_unit_types=9), action_space(U, A)
    assert policy_config(*spaces, {}).num_verbs == NUM_VERBS
    with pytest.raises(ValueError, match=r"num_verbs 3.*14"):
        policy_config(*spaces, {"num_verbs": 3})
    with pytest.raises(ConfigError, match="num_latent"):
        policy_config(*spaces, {"encoder": {"num_latens": 3}})
    with pytest.raises(ValueError, match="9 unit types"):
        policy_config(*spaces, {"num_unit_types": 4})
    with pytest.raises(ValueError, match=r"missing.*units"):
        policy_config(gym.spaces.Box(0, 1, (3,)), spaces[1], {})
    with pytest.raises(ValueError, match="MultiDiscrete"):
        policy_config(spaces[0], gym.spaces.Discrete(3), {})


def test_memory_is_carried_through_rllibs_states(batch):
    """A sequence in one pass, as in training, equals step after step, as in sampling."""
    module = make_module(memory=True, encoder=TINY["encoder"] | {"num_latents": 3})
    assert module.is_stateful()
    assert {name: state.shape for name, state in module.get_initial_state().items()} == {"latents": (3, 8)}
    observation = {key: value.unflatten(0, (4, 4)) for key, value in batch[Columns.OBS].items()}
    initial = {"latents": torch.zeros(4, 3, 8)}
    state, steps = initial, []
    for t in range(4):
        step = {key: value[:, t : t + 1] for key, value in observation.items()}
        steps.append(module.forward_exploration({Columns.OBS: step, Columns.STATE_IN: state}))
        state = steps[-1][Columns.STATE_OUT]
    sequence = {Columns.OBS: observation, Columns.STATE_IN: initial}
    sequence[Columns.ACTIONS] = torch.cat([step[Columns.ACTIONS] for step in steps], dim=1)
    whole = module.forward_train(sequence)
    for theirs, ours in (
        (Columns.ACTION_DIST_INPUTS, whole[Columns.ACTION_DIST_INPUTS]),
        (Columns.VF_PREDS, whole[Columns.EMBEDDINGS]),
        (Columns.VF_PREDS, module.compute_values(sequence)),
    ):
        torch.testing.assert_close(torch.cat([step[theirs] for step in steps], dim=1), ours)
    forgetful = module.forward_train(sequence | {Columns.STATE_IN: {"latents": torch.randn(4, 3, 8)}})
    assert (forgetful[Columns.EMBEDDINGS] - whole[Columns.EMBEDDINGS]).abs().max() > 1e-4


def test_without_memory_there_is_no_state():
    assert not make_module().is_stateful()


class Drill(MultiAgentEnv):
    """Two agents with ``slots`` units each; whoever orders a STOP is paid. Four steps."""

    def __init__(self, config=None):
        super().__init__()
        self.slots = (config or {}).get("slots", 1)
        self.possible_agents = self.agents = ["a", "b"]
        self.observation_spaces = {
            name: observation_space(U, self.slots, num_unit_types=9) for name in self.possible_agents
        }
        self.action_spaces = {name: action_space(U, self.slots) for name in self.possible_agents}

    def reset(self, *, seed=None, options=None):
        self.rng, self.t = np.random.default_rng(seed), 0
        return self._observe(), {}

    def step(self, action_dict):
        self.t += 1
        rewards = {name: float((orders[:, 0] == 1).sum()) for name, orders in action_dict.items()}
        over = {"__all__": self.t == 4}
        return self._observe(), rewards, over, {"__all__": False}, {}

    def _observe(self):
        return {name: random_observation(self.rng, slots=self.slots) for name in self.possible_agents}


@pytest.mark.parametrize(("slots", "memory"), [(1, False), (3, False), (3, True)])
def test_stock_ppo_learns_from_the_stock_runner(slots, memory):
    """Anyone's config: default learner, default connectors, default episodes; Ray need not run."""
    model = TINY | {"memory": memory, "max_seq_len": 3}  # an episode of 4 steps is two sequences
    config = (
        PPOConfig()
        .environment(Drill, env_config={"slots": slots}, disable_env_checking=True)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=2, rollout_fragment_length=8)
        .multi_agent(policies={"shared"}, policy_mapping_fn=lambda *_, **__: "shared")
        .rl_module(rl_module_spec=RLModuleSpec(module_class=PerceiverRLModule, model_config=model))
        .training(train_batch_size_per_learner=16, minibatch_size=16, num_epochs=1)
    )
    runner = MultiAgentEnvRunner(config=config, worker_index=0)
    learner = PPOTorchLearner(
        config=config, module_spec=config.get_multi_rl_module_spec(spaces=runner.get_spaces())
    )
    learner.build()
    before = {name: value.clone() for name, value in learner.module["shared"].state_dict().items()}
    results = learner.update(episodes=runner.sample(), num_epochs=1, minibatch_size=16)
    assert np.isfinite(float(results["shared"]["total_loss"].peek()))
    after = learner.module["shared"].state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)
