"""Learning from rollouts of an older policy: the learner under RLlib's IMPALA and APPO."""

from __future__ import annotations

from typing import Any

import ray
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core import COMPONENT_RL_MODULE
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.utils.typing import ResultDict

from training.rl.learner import OrderPPOLearner
from training.rl.learner_connector import PacksToTrainBatch
from training.rl.rollout import MODULE_ID

_STATE = "_rl_module_state_after_update"
"""Where RLlib's training step looks for the weights to hand to the runners."""


class OrderVTraceLearner(OrderPPOLearner):
    """PPO's loss on advantages that V-trace corrects for the age of the policy that sampled.

    Only for packs of :class:`~training.rl.rollout.BatchedEnvRunner`. What the policy was when an update began
    is to that update what the sampling policy is to PPO's: ratios and their clipping start from it. That is
    IMPACT (Luo et al. 2020, arXiv:1912.00167), which RLlib calls APPO, with the target network renewed for
    each batch; with an infinite ``clip_param``, one epoch and one minibatch it is IMPALA (Espeholt et al.
    2018, arXiv:1802.01561). RLlib's own losses for the two correct every minibatch anew; they leave
    advantages as they come, small beside the entropy bonus where rewards are small, and let no return flow
    past masked steps, so that a unit's would end with its death.

    An update is done when :meth:`update` returns, where RLlib's two wait for a thread that does it, and for
    ever if it fails. Sampling and learning go on at the same time all the same: runners are processes.
    """

    def make_connector(self) -> ConnectorV2:
        """For packs."""
        return PacksToTrainBatch(**self.connector_settings, off_policy=True)

    def update(self, training_data: TrainingData, *, return_state: bool = False, **kwargs: Any) -> ResultDict:
        """Learn from packs, and give the metrics, with the weights for the runners if they are asked for."""
        result = super().update(training_data=training_data, **kwargs)
        if return_state:
            state = self.get_state(components=f"{COMPONENT_RL_MODULE}/{MODULE_ID}", inference_only=True)
            result[_STATE] = state | {COMPONENT_RL_MODULE: ray.put(state[COMPONENT_RL_MODULE])}
        return result
