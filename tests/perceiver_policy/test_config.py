"""Configurations: round trips, and errors that name the key, the value and the way out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from envs import unit_set
from perceiver_policy import UnitSetPolicy, config_files
from perceiver_policy.config import ConfigError, EncoderConfig
from perceiver_policy.policy_config import Critic, UnitSetPolicyConfig


def test_default_is_the_named_one_and_fits_the_contract() -> None:
    config = config_files.load_named("unit_set_small", UnitSetPolicyConfig)
    assert config == UnitSetPolicyConfig()
    assert config.num_unit_features == unit_set.NUM_UNIT_FEATURES
    assert config.num_scalars == unit_set.NUM_SCALARS
    assert (config.num_verbs, config.num_target_verbs) == (unit_set.NUM_VERBS, unit_set.NUM_TARGET_VERBS)
    for name, column in config.geometry.to_dict().items():
        assert unit_set.FEATURE_INDEX[name] == column
    names = {unit_set.UNIT_FEATURES[column].name for column in config.pair.row_columns}
    assert {"health", "shield", "engaged_by"} <= names


def test_yaml_round_trip(tmp_path: Path) -> None:
    config = UnitSetPolicyConfig(critic=Critic.STATE, encoder=EncoderConfig(num_latents=3, num_blocks=2))
    config_files.save(config, tmp_path / "model.yaml")
    assert config_files.load(tmp_path / "model.yaml") == config


def test_keys_left_out_keep_their_defaults() -> None:
    config = UnitSetPolicyConfig.from_dict({"critic": "state", "encoder": {"num_latents": 3}})
    assert config == dataclasses.replace(
        UnitSetPolicyConfig(), critic=Critic.STATE, encoder=EncoderConfig(num_latents=3)
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"encodr": {}}, r"UnitSetPolicyConfig has no key 'encodr'; did you mean encoder"),
        ({"encoder": {"num_latent": 4}}, r"encoder has no key 'num_latent'; did you mean num_latents"),
        ({"encoder": {"zzz": 4}}, r"no key 'zzz'; allowed: num_latents, "),
        ({"encoder": {"num_latents": "8"}}, r"encoder\.num_latents is '8'; expected int"),
        ({"encoder": {"num_latents": True}}, r"num_latents is True; expected int"),
        ({"encoder": {"num_latents": 0}}, r"num_latents is 0; it must be at least 1"),
        ({"num_unit_types": 10**15}, r"num_unit_types is 10+; it must be at most 65536"),
        ({"encoder": {"num_blocks": 10**9}}, r"num_blocks is 10+; it must be at most 256"),
        ({"encoder": 7}, r"encoder is 7; expected a mapping of EncoderConfig keys"),
        (
            {"encoder": {"num_cross_attention_heads": 3}},
            r"num_cross_attention_heads is 3; it must divide the query and key channels 32: one of \[1, 2, 4",
        ),
        ({"encoder": {"num_self_attention_heads": 5}}, r"num_self_attention_heads is 5; it must divide"),
        ({"decoder": {"num_cross_attention_heads": 3}}, r"num_cross_attention_heads is 3; it must divide"),
        ({"decoder": {"activation": "rellu"}}, r"activation is 'rellu'; allowed: relu, gelu"),
        ({"critic": "global"}, r"critic is 'global'; allowed: \['observation', 'state'\]"),
        ({"geometry": {"enemy": 32}}, r"geometry\.enemy is 32; num_unit_features 32 allows 0 to 31"),
        ({"pair": {"row_columns": [4, 99]}}, r"pair\.row_columns\[1\] is 99"),
        ({"pair": {"row_columns": [4, "health"]}}, r"row_columns\[1\] is 'health'; expected int"),
        ({"num_target_verbs": 14}, r"num_target_verbs is 14; it must be below num_verbs, 14"),
        ({"unit_input": {"length_scale": float("nan")}}, r"length_scale is nan; expected float"),
        ([1, 2], r"expected a mapping of UnitSetPolicyConfig keys"),
    ],
)
def test_errors_name_key_value_and_way_out(data: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        UnitSetPolicyConfig.from_dict(data)


def test_errors_at_construction_too() -> None:
    with pytest.raises(ConfigError, match=r"EncoderConfig\.activation is 'rellu'"):
        EncoderConfig(activation="rellu")
    with pytest.raises(ConfigError, match=r"EncoderConfig\.num_latents is 2\.5; expected int"):
        EncoderConfig(num_latents=2.5)  # type: ignore[arg-type]


def test_errors_in_files_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.yaml"
    path.write_text("encoder: [")
    with pytest.raises(ConfigError, match=r"model\.yaml: "):
        config_files.load(path)
    path.write_text("encoder: {}")
    with pytest.raises(
        ConfigError, match=r"model\.yaml: kind is None; allowed: unit_set_policy, perceiver_io, perceiver_ar"
    ):
        config_files.load(path)
    path.write_text("kind: perceiver_io")
    with pytest.raises(ConfigError, match="kind is 'perceiver_io'; expected 'unit_set_policy'"):
        config_files.load(path, UnitSetPolicyConfig)
    path.write_text("encodr: {}")
    with pytest.raises(ConfigError, match=r"model\.yaml: .*did you mean encoder"):
        config_files.load(path, UnitSetPolicyConfig)
    with pytest.raises(ConfigError, match="no configuration is named 'unit_set_smal'; did you mean"):
        config_files.load_named("unit_set_smal")


def test_every_size_can_be_other_than_the_default() -> None:
    config = UnitSetPolicyConfig.from_dict(
        {
            "num_unit_features": 9,
            "num_scalars": 2,
            "num_verbs": 5,
            "num_target_verbs": 1,
            "num_unit_types": 4,
            "geometry": {"x": 8, "y": 7, "radius": 0, "weapon_range": 1, "own": 2, "enemy": 3},
            "unit_input": {"num_channels": 12, "num_hidden_channels": 10, "num_frequency_bands": 2},
            "pair": {"num_channels": 6, "row_columns": []},
            "encoder": {"num_latent_channels": 20, "num_cross_attention_qk_channels": 8},
            "decoder": {"num_cross_attention_heads": 3},
            "order_head": {"num_key_channels": 7},
        }
    )
    UnitSetPolicy(config)
