"""Other torsos of the Perceiver's size, with a training that is only told, and one that is real."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from perceiver_policy.config_files import load_named
from perceiver_policy.policy import UnitSetPolicy
from perceiver_policy.policy_config import UnitSetPolicyConfig
from training.benchmark import torsos
from training.benchmark.torso_networks import TORSOS, deep_sets, flat_mlp, num_weights, transformer
from training.benchmark.torsos import Point, measure, torso_configs
from training.cli import main
from training.rl.seats import BattleSetup

CONFIG = load_named("unit_set_small", UnitSetPolicyConfig)
TINY = (
    "max_env_steps=64",
    "num_battles=4",
    "rollout_steps=8",
    "minibatch_size=16",
    "evaluation_interval=1",
    "evaluation_games=4",
)


@pytest.fixture(scope="module")
def observation() -> dict[str, torch.Tensor]:
    (seat,) = BattleSetup("3m", swap_sides=False).seats(16, (0,))
    return {key: torch.from_numpy(np.array(array)) for key, array in seat.observation.items()}


def with_padding(observation: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Two more rows of rubbish that hold no unit."""
    rubbish = dict(observation)
    units = observation["units"]
    rubbish["units"] = torch.cat((units, torch.full_like(units[:, :2], 7.0)), dim=1)
    for key in ("unit_type", "unit_mask"):
        rubbish[key] = torch.cat((observation[key], torch.zeros_like(observation[key][:, :2])), dim=1)
    targets = observation["target_mask"]
    rubbish["target_mask"] = torch.cat((targets, torch.zeros_like(targets[..., :2])), dim=-1)
    return rubbish


@pytest.mark.parametrize("num_units", [6, 16, 57])
@pytest.mark.parametrize("build", [transformer, deep_sets, flat_mlp])
def test_all_have_about_as_many_weights(build, num_units: int) -> None:
    perceiver, other = num_weights(UnitSetPolicy(CONFIG)), num_weights(build(CONFIG, num_units))
    assert other == pytest.approx(perceiver, rel=0.05)


@pytest.mark.parametrize("build", [transformer, deep_sets])
def test_rows_without_a_unit_change_nothing(build, observation: dict[str, torch.Tensor]) -> None:
    torch.manual_seed(0)
    policy = build(CONFIG, 6)
    with torch.no_grad():
        plain, padded = policy(observation), policy(with_padding(observation))
    torch.testing.assert_close(padded.verb_logits, plain.verb_logits)
    torch.testing.assert_close(padded.value, plain.value)


@pytest.mark.parametrize("build", [transformer, deep_sets, flat_mlp])
def test_answers_depend_on_every_unit_that_is_there(build, observation: dict[str, torch.Tensor]) -> None:
    """Also on those that a unit's own query and the geometry around it do not show: the value has neither."""
    torch.manual_seed(0)
    policy = build(CONFIG, 6)
    units, mask = observation["units"], torch.ones_like(observation["unit_mask"])
    observation = {**observation, "units": units + torch.rand_like(units), "unit_mask": mask}
    with torch.no_grad():
        before = policy.value(observation)[0]
        for row in range(6):
            changed = {key: tensor.clone() for key, tensor in observation.items()}
            changed["units"][:, row, 6] *= 0.5
            assert (policy.value(changed)[0] - before).abs() > 1e-7, row


def test_a_table_is_of_one_number_of_rows(observation: dict[str, torch.Tensor]) -> None:
    """And what a row without a unit holds does not count."""
    policy = flat_mlp(CONFIG, 8)
    padded = with_padding(observation)
    other = {**padded, "units": torch.where(padded["unit_mask"][..., None], padded["units"], 3.0)}
    with torch.no_grad():
        torch.testing.assert_close(policy(padded).verb_logits, policy(other).verb_logits)
        with pytest.raises(RuntimeError):
            policy(observation)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("model_overrides=[memory=true]",), "memory is True"),
        (("model_overrides=[encoder.num_latent_channels=8]",), "they must be equal"),
        (("model_overrides=[encoder.num_latents=400]",), "must be within 5%"),
        (("nonsense=1",), "nonsense"),
    ],
)
def test_what_cannot_be_compared(changes: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        torso_configs(("3m",), 1, changes)


def told(config, module_class) -> list[Point]:
    """The transformer is there with seed 0 alone, at 200 steps; the others are never."""
    strong = module_class is TORSOS["transformer"] and config.seed == 0
    return [
        Point(100, 1.5, 0.4, 0.3),
        Point(200, 3.0, 0.99, 0.96 if strong else 0.94),
        Point(300, 4.5, 0.98, 0.951 if strong else 0.93),
    ]


def test_rows_and_the_plot(tmp_path: Path) -> None:
    console = Console(file=io.StringIO())
    configs = torso_configs(("3m",), 2, ("minibatch_size=8",))
    made = list(measure("it", configs=configs, learn=told, repeats=1, console=console))
    by_name = {row.name: row for row in made}
    assert by_name["torsos/3m/transformer/seed_0/steps_to_0.95"].ours == 200
    assert by_name["torsos/3m/transformer/seed_0/seconds_to_0.95"].ours == 3.0
    assert by_name["torsos/3m/transformer/seeds"].ours == 1
    assert by_name["torsos/3m/transformer/seeds"].unit == "of 2 got there"
    assert "torsos/3m/transformer/seed_1/steps_to_0.95" not in by_name
    assert by_name["torsos/3m/perceiver/seeds"].ours == 0
    assert by_name["torsos/3m/mlp/seed_1/win_rate"].ours == 0.98
    assert by_name["torsos/3m/mlp/seed_1/curve/200_steps/win_rate"].ours == 0.99
    assert by_name["torsos/3m/mlp/seed_1/curve/200_steps/seconds"].ours == 3.0
    beside = [row.rival_name for row in made if row.name == "torsos/3m/forward_backward"]
    assert beside == [None, "transformer", "deep-sets", "mlp"]
    curve = torsos._curves(made)["3m", "mlp", "seed_1"]
    assert curve == [
        (100, 1.5, 0.4),
        (200, 3.0, 0.99),
        (300, 4.5, 0.98),
    ]
    json.dumps([row.to_dict() for row in made], allow_nan=False)
    pytest.importorskip("matplotlib")
    assert torsos.plot(made, tmp_path / "rows.png") is None
    assert (tmp_path / "rows.png").read_bytes().startswith(b"\x89PNG")
    assert torsos.plot([], tmp_path / "none.png") == "no plot: there are no curves"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_job_trains_any_of_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Points of curves go to the file, not to the table."""
    file = tmp_path / "torsos.json"
    assert main(["benchmark", "torsos", "--seeds", "1", "--changes", *TINY, "--json", str(file)]) == 0
    printed = capsys.readouterr()
    rows = {row["name"]: row for row in json.loads(file.read_text(encoding="utf-8"))}
    for torso in TORSOS:
        for steps in (32, 64):
            name = f"torsos/3m/{torso}/seed_0/curve/{steps}_steps/win_rate"
            assert 0 <= rows[name]["ours"] <= 1
        assert rows[f"torsos/3m/{torso}/seed_0/training"]["ours"] > 0
        assert rows[f"torsos/3m/{torso}/weights"]["ours"] == pytest.approx(
            rows["torsos/3m/perceiver/weights"]["ours"], rel=0.05
        )
    assert "/curve/" not in printed.out
    assert "--seeds 1 --changes" in rows["torsos/3m/mlp/weights"]["command"]
