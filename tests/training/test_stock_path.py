"""The project's MultiAgentEnv under RLlib's own runner, with a ratio for each unit. Ray need not run."""

import copy

import numpy as np
import pytest
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.rllib.evaluation.postprocessing import Postprocessing

from envs.battle.rllib_env import BattleMultiAgentEnv
from perceiver_policy.rl_module import PerceiverRLModule
from training.rl.learner import APPROXIMATE_KL, OrderPPOLearner

MODEL = {
    "unit_input": {"num_channels": 8, "num_hidden_channels": 8},
    "encoder": {"num_latents": 2, "num_latent_channels": 8},
    "per_unit_ratio": True,
}


@pytest.mark.parametrize(("control", "slots"), [("team", 3), ("unit", 1)])
def test_an_iteration(control, slots):
    config = (
        PPOConfig()
        .environment(
            BattleMultiAgentEnv, env_config={"scenario": "3m", "control": control}, disable_env_checking=True
        )
        .env_runners(num_env_runners=0, num_envs_per_env_runner=2, rollout_fragment_length=30)
        .multi_agent(policies={"shared"}, policy_mapping_fn=lambda *_, **__: "shared")
        .rl_module(rl_module_spec=RLModuleSpec(module_class=PerceiverRLModule, model_config=MODEL))
        .learners(learner_class=OrderPPOLearner)
        .training(train_batch_size_per_learner=60, minibatch_size=20, num_epochs=1)
    )
    runner = MultiAgentEnvRunner(config=config, worker_index=0)
    learner = OrderPPOLearner(
        config=config, module_spec=config.get_multi_rl_module_spec(spaces=runner.get_spaces())
    )
    learner.build()
    learner.module.set_state(runner.module.get_state())
    episodes = runner.sample()
    batch = learner._learner_connector(
        rl_module=learner.module, batch={}, episodes=copy.deepcopy(episodes), shared_data={}
    )["shared"]
    rows = len(batch[Columns.LOSS_MASK])
    for key in (
        Columns.ACTION_LOGP,
        Columns.LOSS_MASK,
        Postprocessing.ADVANTAGES,
        Postprocessing.VALUE_TARGETS,
    ):
        assert batch[key].shape == (rows, slots), key
    module = learner.module["shared"]
    logits = module.forward_train(batch)[Columns.ACTION_DIST_INPUTS]
    log_prob = module.get_train_action_dist_cls().from_logits(logits).logp(batch[Columns.ACTIONS])
    mask = batch[Columns.LOSS_MASK]
    torch.testing.assert_close(log_prob[mask], batch[Columns.ACTION_LOGP][mask], rtol=0, atol=1e-5)
    results = learner.update(episodes=episodes, num_epochs=1, minibatch_size=20)["shared"]
    assert np.isfinite(float(results["total_loss"].peek()))
    assert float(results[APPROXIMATE_KL].peek()) < 0.5
