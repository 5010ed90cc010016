"""The same trajectories through RLlib's episodes and connectors, and through packs: the same train batch."""

import dataclasses

import numpy as np
import pytest
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO

from envs.battle.rllib_env import BattleMultiAgentEnv
from perceiver_policy.rl_module import PerceiverRLModule
from training.rl.algorithms import build_algorithm_config
from training.rl.config import TrainConfig
from training.rl.learner import OrderPPOLearner
from training.rl.learner_connector import PacksToTrainBatch
from training.rl.pack import RolloutPack
from training.rl.rollout import MODULE_ID, BatchedEnvRunner

SMALL = TrainConfig(
    num_battles=4,
    rollout_steps=40,
    minibatch_size=40,
    model_overrides=("encoder.num_latents=2", "encoder.num_latent_channels=8", "unit_input.num_channels=8"),
)


def stock_learner(runner: BatchedEnvRunner, control: str, critic: str) -> OrderPPOLearner:
    """On RLlib's own path of episodes, with the runner's weights."""
    spec = runner.config.rl_module_spec.rl_module_specs[MODULE_ID]
    config = (
        PPOConfig()
        .environment(
            BattleMultiAgentEnv,
            env_config={"scenario": "3m", "control": control, "with_state": critic == "state"},
            disable_env_checking=True,
        )
        .multi_agent(policies={MODULE_ID}, policy_mapping_fn=lambda *_, **__: MODULE_ID)
        .rl_module(
            rl_module_spec=RLModuleSpec(module_class=PerceiverRLModule, model_config=spec.model_config)
        )
        .learners(learner_class=OrderPPOLearner)
        .training(gamma=SMALL.gamma, lambda_=SMALL.gae_lambda)
    )
    learner = OrderPPOLearner(
        config=config, module_spec=config.get_multi_rl_module_spec(spaces=runner.get_spaces())
    )
    learner.build()
    learner.module.set_state(runner.module.get_state())
    return learner


def episodes_of(pack) -> list[MultiAgentEpisode]:
    """The pack's battles as RLlib's runner would have them: agents stay to the end, the last episode of each
    battle is cut off. In place of the number of its weights, each step has its row in our train batch."""
    num_steps, num_battles = pack.rewards.shape
    num_observers = pack.num_observers
    agents = [f"agent{i}" for i in range(num_observers)]

    def observation(t, b):
        if num_observers == 1:
            return {agents[0]: {key: array[t, b] for key, array in pack.observations.items()}}
        return {
            agent: {key: array[t, b, i % array.shape[2]] for key, array in pack.observations.items()}
            for i, agent in enumerate(agents)
        }

    episodes = []
    for b in range(num_battles):
        start = 0
        while start < num_steps:
            ends = np.flatnonzero(pack.dones[start:, b])
            end = start + int(ends[0]) + 1 if len(ends) else num_steps
            episode = MultiAgentEpisode(agent_to_module_mapping_fn=lambda *_, **__: MODULE_ID)
            episode.add_env_reset(observations=observation(start, b))
            for t in range(start, end):
                index = [b * num_observers + i for i in range(num_observers)]
                over = bool(pack.dones[t, b])
                episode.add_env_step(
                    # What is seen when a battle is over never counts, and packs do not keep it.
                    observations=observation(t if over else t + 1, b),
                    actions={agent: pack.orders[t, i] for agent, i in zip(agents, index, strict=True)},
                    rewards=dict.fromkeys(agents, float(pack.rewards[t, b])),
                    terminateds={"__all__": over} | dict.fromkeys(agents, over),
                    truncateds={"__all__": False},
                    extra_model_outputs={
                        agent: {
                            WEIGHTS_SEQ_NO: i * num_steps + t,
                            Columns.ACTION_LOGP: pack.log_probs[t, i],
                            Columns.ACTION_DIST_INPUTS: np.zeros((pack.orders.shape[2], 1), np.float32),
                        }
                        for agent, i in zip(agents, index, strict=True)
                    },
                )
            episode.to_numpy()
            episodes.append(episode)
            start = end
    return episodes


def with_equal_scalars(pack, module) -> RolloutPack:
    """Every unit has the first one's scalars; what the critic makes of that."""
    pack.observations["scalars"][:] = pack.observations["scalars"][:, :, :1]
    observation = {key: torch.tensor(pack.rows(key, slice(-1))) for key in pack.observations}
    values = module.compute_values({Columns.OBS: observation}).detach().numpy()
    return dataclasses.replace(pack, values=values.reshape(pack.values.shape))


@pytest.mark.parametrize(
    ("control", "critic"), [("team", "observation"), ("team", "state"), ("unit", "state")]
)
def test_packs_and_episodes_make_the_same_batch(control, critic):
    """Under unit control a team's value is the mean over its living units. With the state, and the same
    scalars for all of them, they all estimate the same, so that nothing is left to differ."""
    config = build_algorithm_config(
        dataclasses.replace(
            SMALL, control=control, model_overrides=(*SMALL.model_overrides, f"critic={critic}")
        )
    )
    runner = BatchedEnvRunner(config=config, worker_index=0)
    (pack,) = runner.sample()
    assert pack.dones[:-1].sum() > 0
    assert not pack.dones[-1].all()
    if control == "unit":
        pack = with_equal_scalars(pack, runner.module[MODULE_ID])
    stock = stock_learner(runner, control, critic)
    ours = PacksToTrainBatch(gamma=SMALL.gamma, lambda_=SMALL.gae_lambda)(
        rl_module=stock.module, batch={}, episodes=[pack]
    )[MODULE_ID]
    theirs = stock._learner_connector(
        rl_module=stock.module, batch={}, episodes=episodes_of(pack), shared_data={}
    )[MODULE_ID]
    mask = theirs[Columns.LOSS_MASK]
    assert mask.sum() == ours[Columns.LOSS_MASK].sum() < mask.numel()
    place = theirs[WEIGHTS_SEQ_NO][:, 0].long()
    for key in (Columns.ACTIONS, Columns.ACTION_LOGP, Columns.LOSS_MASK):
        torch.testing.assert_close(theirs[key][mask], ours[key][place][mask], check_dtype=False)
    for key in (Postprocessing.VALUE_TARGETS, Postprocessing.ADVANTAGES):
        torch.testing.assert_close(
            theirs[key][mask], ours[key][place][mask], rtol=0, atol=1e-5, check_dtype=False
        )
