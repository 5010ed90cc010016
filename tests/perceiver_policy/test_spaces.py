"""What each kind of space becomes, against numbers made by hand, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector.utils import batch_space
from torch.testing import assert_close

from perceiver_policy.config import ConfigError
from perceiver_policy.inputs.categories import CategoriesInput, CategoriesInputConfig
from perceiver_policy.inputs.features import FeaturesInput, FeaturesInputConfig
from perceiver_policy.inputs.image import ImageInputConfig, PatchesConfig
from perceiver_policy.model import PerceiverIO
from perceiver_policy.model_config import PerceiverIOConfig
from perceiver_policy.spaces import ChannelAxis, SpaceError, SpaceInput, SpaceInputConfig

spaces = gym.spaces
EVERYTHING = spaces.Dict(
    {
        "camera": spaces.Box(0, 255, (6, 6, 3), np.uint8),
        "speed": spaces.Box(-np.inf, np.inf, (3,)),
        "gear": spaces.Discrete(5, start=-1),
        "dials": spaces.MultiDiscrete([3, 4]),
        "lamps": spaces.MultiBinary(2),
        "table": spaces.Box(-1, 1, (4, 3)),
        "pair": spaces.Tuple((spaces.Box(0, 1, ()), spaces.Dict({"x.y/z": spaces.Discrete(2)}))),
        "values": spaces.Box(0, 1, (2,)),
    }
)


def read(space: gym.Space, *observations: Any) -> dict[str, torch.Tensor]:
    """Some observations of a space without parts of its own."""
    return SpaceInput(space)(torch.from_numpy(np.stack([np.asarray(o) for o in observations])))


def sample(space: gym.Space, batch: int) -> Any:
    """A batch of observations as tensors, nested as the space."""
    batched = batch_space(space, batch)
    batched.seed(0)

    def tensors(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: tensors(item) for key, item in value.items()}
        return tuple(map(tensors, value)) if isinstance(value, tuple) else torch.as_tensor(value)

    return tensors(batched.sample())


def test_numbers_with_bounds_and_without() -> None:
    space = spaces.Box(
        np.array([-2, 0, -np.inf, -3e38, 7], np.float32), np.array([2, 10, np.inf, 3e38, 7], np.float32)
    )
    inputs = read(space, np.array([1, 10, 3, -3, 7], np.float32), np.array([-2, 0, 0, 0, 7], np.float32))
    expected = torch.tensor([[[0.5, 1, math.log(4), -math.log(4), -1]], [[-1, -1, 0, 0, -1]]])
    assert_close(inputs, {"observation": expected})


def test_a_single_number() -> None:
    assert_close(read(spaces.Box(0, 4, ()), 3.0)["observation"], torch.tensor([[[0.5]]]))


def test_a_table_is_a_token_for_each_row() -> None:
    table = np.arange(6, dtype=np.float32).reshape(2, 3)
    space = spaces.Box(0, 10, (2, 3))
    assert_close(read(space, table)["observation"], torch.from_numpy(table)[None] / 5 - 1)
    config = SpaceInput(space).config.modalities["observation"]
    assert isinstance(config, FeaturesInputConfig)
    assert (config.num_rows, config.num_features) == (2, 3)


def test_an_image_of_bytes() -> None:
    image = np.zeros((3, 3, 2), np.uint8)
    image[0, 1] = 255, 51
    inputs = read(spaces.Box(0, 255, (3, 3, 2), np.uint8), image)["observation"]
    expected = torch.zeros(1, 2, 3, 3)
    expected[0, :, 0, 1] = torch.tensor([1.0, 0.2])
    assert_close(inputs, expected)


@pytest.mark.parametrize(
    ("space", "image"),
    [
        (spaces.Box(0, 1, (2, 3), bool), np.array([[0, 1, 0], [1, 1, 0]], bool)),
        (spaces.MultiBinary((2, 3)), np.array([[0, 1, 0], [1, 1, 0]], np.int8)),
        (spaces.Box(2, 4, (2, 3), np.int64), np.array([[2, 4, 2], [4, 4, 2]])),
    ],
)
def test_a_plane_of_whole_numbers_is_an_image_of_one_channel(space: gym.Space, image: np.ndarray) -> None:
    assert_close(read(space, image)["observation"], torch.tensor([[[[0.0, 1, 0], [1, 1, 0]]]]))


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((84, 84, 4), ChannelAxis.LAST),
        ((4, 84, 84), ChannelAxis.FIRST),
        ((7, 7, 20), ChannelAxis.LAST),
        ((20, 7, 7), ChannelAxis.FIRST),
        ((210, 160, 3), ChannelAxis.LAST),
        ((3, 210, 160), ChannelAxis.FIRST),
        ((3, 3, 3), ChannelAxis.LAST),
    ],
)
def test_which_axis_holds_the_channels(shape: tuple[int, ...], axis: ChannelAxis) -> None:
    image = torch.rand(1, *shape)
    moved = image if axis is ChannelAxis.FIRST else image.permute(0, 3, 1, 2)
    assert_close(SpaceInput(spaces.Box(0, 1, shape))(image)["observation"], moved)


def test_the_channels_axis_can_be_said() -> None:
    space, image = spaces.Dict(eye=spaces.Box(0, 1, (5, 5, 9))), torch.rand(2, 5, 5, 9)
    config = SpaceInputConfig(channels={"observation/eye": ChannelAxis.FIRST})
    assert_close(SpaceInput(space, config)({"eye": image})["observation/eye"], image)
    with pytest.raises(ConfigError, match=r"names 'eye'.*allowed: observation/eye"):
        SpaceInput(space, SpaceInputConfig(channels={"eye": ChannelAxis.FIRST}))


@pytest.mark.parametrize(
    ("size", "patch", "cells"), [(10, 1, 10), (12, 1, 12), (13, 2, 7), (84, 7, 12), (224, 19, 12)]
)
def test_large_images_come_in_patches(size: int, patch: int, cells: int) -> None:
    config = SpaceInput(spaces.Box(0, 255, (size, size, 3), np.uint8)).config.modalities["observation"]
    assert isinstance(config, ImageInputConfig)
    assert isinstance(config.preprocessing, PatchesConfig)
    assert config.preprocessing.size == patch
    assert config.position.max_resolution == (cells, cells)


def test_categories_count_from_nought() -> None:
    assert_close(read(spaces.Discrete(5, start=-1), -1, 3), {"observation": torch.tensor([[0], [4]])})
    several = spaces.MultiDiscrete([[3, 4], [2, 5]], start=[[0, 10], [0, 0]])
    assert_close(read(several, [[2, 13], [0, 4]]), {"observation": torch.tensor([[2, 3, 0, 4]])})


def test_a_category_is_a_row_of_one_table() -> None:
    adapter = CategoriesInput(CategoriesInputConfig((3, 4), num_channels=5))
    tokens = adapter(torch.tensor([[2, 0], [0, 3]])).content
    assert_close(tokens, adapter.embedding.weight[torch.tensor([[2, 3], [0, 6]])])
    with pytest.raises(ValueError, match="float32"):
        adapter(torch.zeros(2, 2))
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        adapter(torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(ConfigError, match="num_values"):
        CategoriesInputConfig(())


def test_rows_of_features_have_places() -> None:
    adapter = FeaturesInput(FeaturesInputConfig(3, num_rows=2, num_channels=5))
    rows = torch.rand(1, 1, 3).expand(4, 2, 3)
    assert adapter.positions is not None
    assert_close(adapter(rows).content, adapter.mlp(rows) + adapter.positions.table)
    with pytest.raises(ValueError, match="features"):
        adapter(torch.rand(4, 3, 3))
    assert FeaturesInput(FeaturesInputConfig(3)).positions is None


def test_nested_parts_have_names_and_none_is_lost() -> None:
    inputs = SpaceInput(EVERYTHING)(sample(EVERYTHING, 2))
    assert {name.removeprefix("observation/"): tuple(t.shape[1:]) for name, t in inputs.items()} == {
        "camera": (3, 6, 6),
        "speed": (1, 3),
        "gear": (1,),
        "dials": (2,),
        "lamps": (1, 2),
        "table": (4, 3),
        "pair/0": (1, 1),
        "pair/1/x%2Ey%2Fz": (1,),
        "values": (1, 2),
    }


def test_the_order_of_keys_does_not_matter() -> None:
    def reorder(value: Any) -> Any:
        if isinstance(value, spaces.Dict):
            backwards = reversed(value.spaces.items())
            return spaces.Dict([(key, reorder(item)) for key, item in backwards])
        if isinstance(value, dict):
            return {key: reorder(item) for key, item in reversed(value.items())}
        return value

    other = reorder(EVERYTHING)
    assert list(other.spaces) != list(EVERYTHING.spaces)
    observations = sample(EVERYTHING, 2)
    outputs = []
    for space, given in ((EVERYTHING, observations), (other, reorder(observations))):
        torch.manual_seed(0)
        reading = SpaceInput(space)
        outputs.append(PerceiverIO(PerceiverIOConfig(input=reading.config))(reading(given)))
    assert_close(*outputs, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Dict(a=spaces.Dict(mission=spaces.Text(9))), r"observation/a/mission is a Text .*FilterObs"),
        (spaces.Sequence(spaces.Discrete(2)), "observation is a Sequence space"),
        (spaces.Tuple((spaces.Graph(spaces.Discrete(2), None),)), "observation/0 is a Graph space"),
        (spaces.OneOf([spaces.Discrete(2), spaces.Discrete(3)]), "observation is a OneOf space"),
        (spaces.Box(0, 1, (2, 3, 4, 5)), r"observation is a Box of 4 axes, \(2, 3, 4, 5\)"),
        (spaces.Box(0, 1, (0,)), "holds no numbers"),
        (spaces.Dict({}), "empty"),
    ],
)
def test_what_has_no_modality_is_refused(space: gym.Space, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        SpaceInput(space)


def test_tokens_too_narrow_for_an_image_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"num_channels is 30; it must be above 30"):
        SpaceInputConfig(num_channels=30)
