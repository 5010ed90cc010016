"""The settings of a training job: their files, their limits, and the configuration made of them."""

import pytest
import tyro

from envs.battle.rules import RewardWeights
from perceiver_policy.config import ConfigError
from training.rl.algorithms import build_algorithm_config
from training.rl.config import TrainConfig
from training.rl.rollout import MODULE_ID
from training.rl.run_folder import RunFolderError, open_run
from training.rl.seats import BattleSetup

TINY_MODEL = ("encoder.num_latents=2", "encoder.num_latent_channels=8", "unit_input.num_channels=8")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_battles": 0}, "num_battles is 0.*at least 1"),
        ({"lr": 0.0}, "lr is 0.0.*above 0"),
        ({"gamma": 1.5}, "gamma is 1.5.*0 to 1"),
        ({"num_env_runners": 3}, "num_battles is 128.*3 env runners"),
        ({"minibatch_size": 4096}, "minibatch_size is 4096.*2048"),
        ({"target_win_rate": 1.0}, "target_win_rate is 1.0.*below 1"),
        ({"time_limit_s": -1.0}, "time_limit_s is -1.0"),
        ({"adam_betas": (0.9, 1.5)}, r"adam_betas is \(0.9, 1.5\).*below 1"),
        ({"adam_betas": (0.9,)}, r"adam_betas is \(0.9,\).*tuple\[float, float\]"),
        ({"num_battles": "many"}, "num_battles is 'many'.*int"),
        ({"max_env_steps": True}, "max_env_steps is True.*int"),
        ({"control": "teem"}, "control is 'teem'.*'team', 'unit'"),
        ({"algorithm": "appo"}, "num_env_runners is 0; appo samples in other processes"),
        (
            {"algorithm": "impala", "num_env_runners": 2, "num_learners": 2},
            "num_learners is 2; impala has one",
        ),
        ({"num_learners": 3}, "num_battles is 128; 1 env runners and 3 learners must share them evenly"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**changes)


def test_settings_survive_their_file(tmp_path):
    config = TrainConfig(run_dir=tmp_path / "run", lr=3e-4, model_overrides=("encoder.num_latents=2",))
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert TrainConfig.load(tmp_path / "config.yaml") == config


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("nonsense: 1", "does not hold the settings"),
        ("", "does not hold the settings"),
        ("lr: 0.1", "does not hold the settings"),
        ("run_dir: [1]", "does not hold the settings"),
        ("a: [", "no YAML"),
        ("run_dir: x\nnum_battles: many", "num_battles is 'many'"),
        ("run_dir: x\nscenario: {a: 1}", "scenario is"),
    ],
)
def test_a_wrong_settings_file_is_refused_in_one_line(tmp_path, content, message):
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(RunFolderError, match=message) as error:
        open_run(TrainConfig(run_dir=tmp_path, resume=True))
    assert "config.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_settings_are_the_command_line():
    args = ["--scenario", "8m", "--lr", "3e-4", "--time-limit-s", "None", "--model-overrides", "critic=state"]
    config = tyro.cli(TrainConfig, args=args)
    assert config == TrainConfig(scenario="8m", lr=3e-4, time_limit_s=None, model_overrides=("critic=state",))


def test_the_model_takes_overrides():
    model = TrainConfig(model_overrides=("encoder.num_latents=16", "critic=state")).load_model()
    assert (model.encoder.num_latents, model.critic.value) == (16, "state")
    with pytest.raises(ConfigError, match=r"num_latens.*num_latents"):
        TrainConfig(model_overrides=("encoder.num_latens=16",)).load_model()
    with pytest.raises(ValueError, match="KEY=VALUE"):
        TrainConfig(model_overrides=("encoder",)).load_model()
    with pytest.raises(ValueError, match=r"encoder.num_latents=\[.*no YAML value"):
        TrainConfig(model_overrides=("encoder.num_latents=[",)).load_model()


def test_rewards_are_the_scenarios_own_with_changes():
    assert TrainConfig().load_rewards()["3m"] == RewardWeights()
    assert TrainConfig(rewards=("win=2", "loss=0.5")).load_rewards()["3m"] == RewardWeights(win=2.0, loss=0.5)
    mission = TrainConfig(scenario="move_to_beacon").load_rewards()["move_to_beacon"]
    assert mission == RewardWeights(damage=0, damage_taken=0, win=0, loss=0, score=1)
    smac = TrainConfig(scenario="3m@smac").load_rewards()["3m@smac"]
    # 3 marines: 135 health, 10 a kill, 200 for the win; all of it together is 20.
    assert (smac.damage, smac.kill, smac.win) == pytest.approx(
        (135 * 20 / 365, 30 * 20 / 365, 200 * 20 / 365)
    )
    setup = BattleSetup(**build_algorithm_config(TrainConfig(scenario="3m@smac")).env_config)
    assert setup.seats(2, (0,))[0].battles.rewards == smac


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewards": ("wins=1",)}, r"'wins=1' names no weight; did you mean win\?"),
        ({"rewards": ("win",)}, "'win' must be win=NUMBER"),
        ({"rewards": ("win=inf",)}, "'win=inf' must be win=NUMBER"),
        ({"rewards": ("win=1", "win=2")}, "win is given twice"),
        ({"rewards": ("score=1",)}, "score is paid in missions only, and '3m' is none"),
        ({"scenario": "move_to_beacon", "rewards": ("score=0",)}, "every weight is 0"),
        (
            {"scenario": "move_to_beacon", "target_win_rate": 0.9},
            "target_win_rate is 0.9, but move_to_beacon",
        ),
        ({"scenario": "move_to_beacon", "opponent": "scripted:kite"}, "has no units on side 1"),
        ({"scenario": "3m@smack"}, "unknown preset 'smack'; known: native, smac"),
    ],
)
def test_rewards_and_missions_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        build_algorithm_config(TrainConfig(model_overrides=TINY_MODEL, **changes))


def test_rllibs_config_counts_rows_per_observer_and_minibatches_in_steps():
    team, unit = (build_algorithm_config(TrainConfig(control=control)) for control in ("team", "unit"))
    assert (team.train_batch_size_per_learner, team.minibatch_size) == (2048, 512)
    assert (unit.train_batch_size_per_learner, unit.minibatch_size) == (3 * 2048, 512)
    for config in (team, unit):
        config.validate()


@pytest.mark.filterwarnings("ignore:.*multi-dimensional MultiDiscrete")
@pytest.mark.parametrize("control", ["team", "unit"])
def test_mappo_is_ppo_with_a_state_critic_and_normalised_values(control):
    """To the last setting, but for the algorithm's name."""
    by_name = TrainConfig(algorithm="mappo", control=control)
    by_hand = TrainConfig(control=control, model_overrides=("critic=state",), normalize_values=True)
    named, spelled = (build_algorithm_config(config).to_dict() for config in (by_name, by_hand))
    for config in (named, spelled):
        specs = config.pop("_rl_module_spec").rl_module_specs
        config["model"] = specs[MODULE_ID].model_config
        config["space"] = specs[MODULE_ID].observation_space
        del config["policies"]
    assert named["model"]["critic"] == "state"
    assert named["model"]["normalize_values"]
    assert "state_units" in named["space"].spaces
    assert {key for key in named if named[key] != spelled[key]} == set()
    plain = build_algorithm_config(TrainConfig()).rl_module_spec.rl_module_specs[MODULE_ID].model_config
    assert (plain["critic"], plain["normalize_values"]) == ("observation", False)


def test_mappo_with_another_critic_is_refused():
    with pytest.raises(ConfigError, match="critic is 'observation'; mappo's is 'state'"):
        TrainConfig(algorithm="mappo", model_overrides=("critic=observation",)).load_model()
