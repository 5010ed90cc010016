"""A critic's statistics: values do not change when they move, and they travel with the weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from perceiver_policy import UnitSetPolicy
from perceiver_policy.pretrained import WEIGHTS_FILE, ExportError, load_policy, save_policy

MakeObservation = Callable[..., dict[str, Tensor]]
MakePolicy = Callable[..., UnitSetPolicy]
CRITICS = pytest.mark.parametrize("critic", ["observation", "state"])


def double(observation: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        key: tensor.double() if tensor.is_floating_point() else tensor for key, tensor in observation.items()
    }


@CRITICS
def test_moving_the_statistics_changes_no_value(
    critic: str, make_policy: MakePolicy, make_observation: MakeObservation
) -> None:
    policy, observation = make_policy(critic=critic).double(), double(make_observation())
    before = policy.value(observation)
    normalised = policy.critic.normalize(before)
    torch.testing.assert_close(normalised, before, rtol=0, atol=0)  # mean 0, deviation 1
    for mean, std in ((3.0, 0.25), (-700.0, 40.0), (0.5, 2.0)):
        policy.critic.rescale(torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64))
        torch.testing.assert_close(policy.value(observation), before, rtol=0, atol=1e-12)
        torch.testing.assert_close(policy(observation).value, before, rtol=0, atol=1e-12)
        torch.testing.assert_close(policy.critic.normalize(before), (before - mean) / std, rtol=0, atol=1e-12)
    assert policy.critic.num_updates == 3
    assert (policy.critic.mean, policy.critic.std) == (0.5, 2.0)


@CRITICS
def test_the_last_layer_is_normalised(
    critic: str, make_policy: MakePolicy, make_observation: MakeObservation
) -> None:
    """What the head gives is (V − μ) / σ: a step of its weights moves values σ times as far."""
    policy, observation = make_policy(critic=critic), make_observation()
    policy.critic.rescale(torch.tensor(5.0), torch.tensor(10.0))
    before = policy.value(observation)
    with torch.no_grad():
        policy.critic.head[-1].bias.add_(0.5)
    torch.testing.assert_close(policy.value(observation), before + 5.0)


@CRITICS
def test_statistics_are_exported(critic: str, make_policy: MakePolicy, tmp_path: Path) -> None:
    policy = make_policy(critic=critic)
    policy.critic.rescale(torch.tensor(5.0), torch.tensor(10.0))
    save_policy(policy, tmp_path)
    loaded = load_policy(tmp_path).critic
    assert (loaded.mean, loaded.std, loaded.num_updates) == (5.0, 10.0, 1)


@CRITICS
def test_an_export_without_statistics_loads_unnormalised(
    critic: str, make_policy: MakePolicy, make_observation: MakeObservation, tmp_path: Path
) -> None:
    policy, observation = make_policy(critic=critic), make_observation()
    save_policy(policy, tmp_path)
    weights = safetensors.torch.load_file(tmp_path / WEIGHTS_FILE)
    with safetensors.safe_open(tmp_path / WEIGHTS_FILE, framework="pt") as file:
        header = file.metadata()
    older = {name: tensor for name, tensor in weights.items() if name not in policy.optional_weights()}
    assert len(older) == len(weights) - 3
    safetensors.torch.save_file(older, tmp_path / WEIGHTS_FILE, metadata=header)
    loaded = load_policy(tmp_path)
    assert (loaded.critic.mean, loaded.critic.std, loaded.critic.num_updates) == (0.0, 1.0, 0)
    torch.testing.assert_close(loaded.value(observation), policy.value(observation), rtol=0, atol=0)
    # Also over a policy that is normalised: nothing of its statistics stays.
    normalised = make_policy(critic=critic)
    normalised.critic.rescale(torch.tensor(5.0), torch.tensor(10.0))
    normalised.load_state_dict(older)
    torch.testing.assert_close(normalised.value(observation), policy.value(observation), rtol=0, atol=0)
    # Any other gap is one.
    del older[next(name for name in older if "_critic" in name)]
    safetensors.torch.save_file(older, tmp_path / WEIGHTS_FILE, metadata=header)
    with pytest.raises(ExportError, match="missing"):
        load_policy(tmp_path)
