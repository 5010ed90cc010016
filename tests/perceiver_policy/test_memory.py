"""A policy with memory: what it saw once decides what it does later."""

from __future__ import annotations

import torch
from torch import Tensor

from envs.unit_set import FEATURE_INDEX, NUM_SCALARS, NUM_UNIT_FEATURES, NUM_VERBS, Verb
from perceiver_policy import UnitSetPolicy, UnitSetPolicyConfig

NUM_STEPS, BATCH = 4, 64


def signals(generator: torch.Generator) -> tuple[dict[str, Tensor], Tensor]:
    """Sequences of one unit that sees, at the first step only, an enemy on its left or on its right; and the
    order that is right at the last step, ATTACK_MOVE after left and STOP after right."""
    right = torch.rand(BATCH, generator=generator) < 0.5
    units = torch.zeros(BATCH, NUM_STEPS, 2, NUM_UNIT_FEATURES)
    units[..., 0, FEATURE_INDEX["own"]] = 1.0
    units[:, 0, 1, FEATURE_INDEX["enemy"]] = 1.0
    units[:, 0, 1, FEATURE_INDEX["x"]] = 8.0 * right - 4.0
    unit_mask = torch.ones(BATCH, NUM_STEPS, 2, dtype=torch.bool)
    unit_mask[:, 1:, 1] = False
    verb_mask = torch.zeros(BATCH, NUM_STEPS, 1, NUM_VERBS, dtype=torch.bool)
    verb_mask[..., [Verb.STOP, Verb.ATTACK_MOVE]] = True
    observation = {
        "units": units,
        "unit_type": torch.ones(BATCH, NUM_STEPS, 2, dtype=torch.int64) * unit_mask,
        "unit_mask": unit_mask,
        "controlled": torch.zeros(BATCH, NUM_STEPS, 1, dtype=torch.int64),
        "controlled_mask": torch.ones(BATCH, NUM_STEPS, 1, dtype=torch.bool),
        "verb_mask": verb_mask,
        "target_mask": torch.zeros(BATCH, NUM_STEPS, 1, 2, 2, dtype=torch.bool),
        "scalars": torch.zeros(BATCH, NUM_STEPS, NUM_SCALARS),
    }
    return observation, torch.where(right, int(Verb.STOP), int(Verb.ATTACK_MOVE))


def last_verb_logits(policy: UnitSetPolicy, observation: dict[str, Tensor]) -> Tensor:
    """(BATCH, V), of the last step."""
    rows = {key: tensor.flatten(0, 1) for key, tensor in observation.items()}
    return policy(rows, num_steps=NUM_STEPS).verb_logits.view(BATCH, NUM_STEPS, -1)[:, -1]


def learn(memory: bool) -> float:
    """Part of fresh sequences whose last order is right, after supervised training."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    policy = UnitSetPolicy(UnitSetPolicyConfig(memory=memory))
    optimizer = torch.optim.Adam(policy.parameters(), lr=3e-3)
    for _ in range(120):
        observation, verb = signals(generator)
        loss = torch.nn.functional.cross_entropy(last_verb_logits(policy, observation), verb)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    observation, verb = signals(generator)
    return (last_verb_logits(policy, observation).argmax(-1) == verb).float().mean().item()


def test_what_was_seen_at_the_first_step_decides_the_last() -> None:
    assert learn(memory=True) > 0.95
    assert learn(memory=False) < 0.75


def test_before_the_first_step_there_is_nothing_to_remember() -> None:
    """With the initial state, a policy with memory computes what the same weights compute without."""
    torch.manual_seed(0)
    policy = UnitSetPolicy(UnitSetPolicyConfig(memory=True)).eval()
    plain = UnitSetPolicy(UnitSetPolicyConfig()).eval()
    plain.load_state_dict({k: v for k, v in policy.state_dict().items() if not k.startswith("memory_norm")})
    observation, _ = signals(torch.Generator().manual_seed(1))
    first = {key: tensor[:, 0] for key, tensor in observation.items()}
    for state in (None, policy.initial_state(BATCH)):
        torch.testing.assert_close(policy(first, state).verb_logits, plain(first).verb_logits)
    assert plain.initial_state(BATCH) is None
    assert plain.act(first, deterministic=True).state is None


def test_the_initial_state_is_of_the_weights_type() -> None:
    policy = UnitSetPolicy(UnitSetPolicyConfig(memory=True)).double()
    state = policy.initial_state(3)
    assert state is not None
    assert state.dtype == torch.float64
    assert not state.requires_grad
    observation, _ = signals(torch.Generator().manual_seed(0))
    first = {key: rows[:, 0] for key, rows in observation.items()}
    first = {key: rows.double() if rows.is_floating_point() else rows for key, rows in first.items()}
    assert policy(first).latents.dtype == torch.float64
