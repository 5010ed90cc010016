"""``perceiver-policy look``: which pictures, of what, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from envs.battle.batch import BattleBatch, Control
from perceiver_policy import UnitSetPolicy, UnitSetPolicyConfig, load_policy, read_metadata, save_policy
from perceiver_policy.policy import ACTOR_KEYS
from training.cli import main
from training.commands import look


@pytest.fixture(params=["team", "unit"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A policy with two blocks, exported as trained under either control."""
    torch.manual_seed(0)
    config = UnitSetPolicyConfig.from_dict({"encoder": {"num_blocks": 2}})
    save_policy(UnitSetPolicy(config), tmp_path / "policy", metadata={"control": request.param})
    return tmp_path


def test_pictures_of_a_moment(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn: list[Tensor] = []
    draw_latents = look.draw_latents

    def keep(latents: Tensor, *args: object, **kwargs: object) -> None:
        drawn.append(latents)
        draw_latents(latents, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(look, "draw_latents", keep)
    out = folder / "out"
    arguments = ["--agent", str(folder / "policy"), "--scenario", "3m", "--seed", "7", "--out", str(out)]
    assert main(["look", *arguments, "--step", "2", "--units", "2"]) == 0
    names = {
        "unit_0.png",
        "unit_1.png",
        "latents.png",
        "attention_encoder.cross_attentions.0.png",
        "attention_encoder.blocks.0.0.png",
        "attention_encoder.blocks.0.0_1.png",
        "attention_decoder.cross_attention.png",
    }
    assert {path.name for path in out.iterdir()} == names
    assert {Path(line).name for line in capsys.readouterr().out.splitlines()} == names
    for name in names:
        with Image.open(out / name) as picture:
            assert np.asarray(picture.convert("L")).std() > 5  # not one colour

    # The latents are those after the last block, at each step, as the policy meets the same battle.
    policy = load_policy(folder / "policy")
    control = Control(read_metadata(folder / "policy")["control"])
    batch = BattleBatch("3m", 1, control=control)
    batch.reset(np.array([7], np.uint64))
    for step in range(3):
        observation = batch.observations[0]
        assert observation is not None
        rows = {
            key: torch.as_tensor(observation[key] if control is Control.TEAM else observation[key][0])
            for key in ACTOR_KEYS
        }
        with torch.no_grad():
            output = policy(rows)
        torch.testing.assert_close(drawn[0][step], output.latents[0])
        orders = output.choose(deterministic=True).orders.numpy()
        batch.step(orders if control is Control.TEAM else orders.reshape(1, -1, 2))
    assert len(drawn[0]) == 3


def test_what_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_policy(UnitSetPolicy(UnitSetPolicyConfig()), tmp_path / "policy")
    look_there = [
        "look",
        "--agent",
        str(tmp_path / "policy"),
        "--scenario",
        "3m",
        "--out",
        str(tmp_path / "o"),
    ]

    def refusal(*arguments: str) -> str:
        with pytest.raises(SystemExit) as exit_info:
            main(arguments)
        assert exit_info.value.code == 2
        return capsys.readouterr().err

    assert "scripted:kite, which has no attention" in refusal("look", "--agent", "scripted:kite")
    assert "--step is -1" in refusal(*look_there, "--step", "-1")
    assert "--units is 0" in refusal(*look_there, "--units", "0")
    assert "--seed is -1" in refusal(*look_there, "--seed", "-1")
    assert "nearest: 3m" in refusal(*look_there, "--scenario", "3mm")
    assert "the battle is over after" in refusal(*look_there, "--step", "1000")
    assert list((tmp_path / "o").iterdir()) == []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "perceiver-policy[pictures]" in refusal(*look_there)
