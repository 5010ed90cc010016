"""Perceiver IO policies and models. Pure torch: importing this package never imports ray.

policy = load_policy("policy/")
orders = policy.act(observation, deterministic=True).orders

model = PerceiverIO(load_named("perceiver-io-imagenet-fourier"))
logits = model(images)
"""

from perceiver_policy.autoregressive import PerceiverAR
from perceiver_policy.autoregressive_config import PerceiverARConfig
from perceiver_policy.config import ConfigError
from perceiver_policy.config_files import load_named
from perceiver_policy.model import PerceiverIO
from perceiver_policy.model_config import PerceiverIOConfig
from perceiver_policy.policy import Evaluation, Orders, PolicyOutput, UnitSetPolicy
from perceiver_policy.policy_config import Critic, UnitSetPolicyConfig
from perceiver_policy.pretrained import ExportError, load_policy, read_metadata, save_policy

__all__ = [
    "ConfigError",
    "Critic",
    "Evaluation",
    "ExportError",
    "Orders",
    "PerceiverAR",
    "PerceiverARConfig",
    "PerceiverIO",
    "PerceiverIOConfig",
    "PolicyOutput",
    "UnitSetPolicy",
    "UnitSetPolicyConfig",
    "load_named",
    "load_policy",
    "read_metadata",
    "save_policy",
]
