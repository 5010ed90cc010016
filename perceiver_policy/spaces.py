"""Observation spaces of Gymnasium as inputs of a Perceiver: every part of an observation is a modality.

    read = SpaceInput(env.observation_space)
    model = PerceiverIO(PerceiverIOConfig(input=read.config, ...))
    outputs = model(read(observations))                    # a batch of them, as tensors

A part is a leaf of a (nested) Dict or Tuple space, named by the way to it: ``observation/camera/left``, or
``observation`` where the space is no Dict. The order of a Dict's keys does not matter.

==================================  =====================================  ===========================
space                               modality                               numbers
==================================  =====================================  ===========================
Box of 3 axes; Box of 2, of whole   image: a token for each pixel, or      to [0, 1] by the bounds, of
numbers; MultiBinary of 2 or 3      patch where there are many pixels      uint8: / 255
Box of 0 or 1 axes, MultiBinary     features: one token                    to [-1, 1] by the bounds of
                                                                           each
Box of 2 axes, of real numbers      features: a token for each row         likewise
Discrete                            categories: one token                  counted from ``start``
MultiDiscrete                       categories: a token for each           likewise
==================================  =====================================  ===========================

Numbers without bounds, or with bounds further apart than :data:`WIDEST`, become sign(x) ln(1 + |x|), near 0
the number itself (symlog; DreamerV3, arXiv:2301.04104, equation 9): large ones stay in reach, and nothing has
to be estimated. Where their scale is far from 1, RLlib's ``MeanStdFilter`` connector before it does better.

Text, Graph, Sequence and OneOf are refused: they have no fixed number of tokens.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, cast
from urllib.parse import quote

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from perceiver_policy.config import Config, ConfigError, nearest
from perceiver_policy.inputs.categories import CategoriesInputConfig
from perceiver_policy.inputs.features import FeaturesInputConfig
from perceiver_policy.inputs.grid import FourierPositionConfig
from perceiver_policy.inputs.image import ImageInputConfig, PatchesConfig
from perceiver_policy.inputs.multimodal import ModalityInputConfig, MultimodalInputConfig

ROOT = "observation"
"""What the whole observation is called, and what the name of each of its parts begins with."""
WIDEST = 1e4
"""Bounds further apart are those of a number's type, or of nothing in particular: they tell no scale."""


class SpaceError(ValueError):
    """A space that has no modality; the message names the part and the way out."""


class ChannelAxis(StrEnum):
    """Which axis of an image holds its channels."""

    FIRST = "first"
    LAST = "last"


@dataclass(frozen=True)
class SpaceInputConfig(Config):
    """How the parts of a space become tokens."""

    num_channels: int = 64  # C, width of a token
    num_hidden_channels: int = 64  # of the MLP that features go through
    min_padding: int = 4  # channels of a token that only say which part it is from
    num_position_bands: int = 6  # Fourier bands of a pixel's place along either axis
    most_image_tokens: int = 144  # with more pixels, they are put together to square patches
    channels: dict[str, ChannelAxis] = field(default_factory=dict)  # by an image's name, where not evident
    activation: str = "gelu"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_known_activation()
        added = self.num_channels - self.num_pixel_channels
        rule = f"it must be above {added}, the channels of an image's positions and the padding"
        self._require(self.num_pixel_channels > 0, "num_channels", rule)

    @property
    def num_own_channels(self) -> int:
        """Of a token, without what says which part it is from."""
        return self.num_channels - self.min_padding

    @property
    def num_pixel_channels(self) -> int:
        """Of an image's token, what says how it looks and not where it is: two axes, each the place itself
        and its sines and cosines."""
        return self.num_own_channels - 2 * (2 * self.num_position_bands + 1)


class SpaceInput(nn.Module):
    """Observations of a space to what :class:`~perceiver_policy.inputs.multimodal.MultimodalInput` takes.

    It has nothing to train or to save: the space says it all.

    Args:
        space: of the observations, unbatched.
        config: how its parts become tokens.

    Raises:
        SpaceError: the space, or a part of it, has no modality.
        ConfigError: ``config`` speaks of an image that is not there.
    """

    def __init__(self, space: gym.Space, config: SpaceInputConfig | None = None) -> None:
        super().__init__()
        config = config or SpaceInputConfig()
        leaves = dict(sorted(_leaves(space, ROOT, ())))
        if not leaves:
            raise SpaceError(f"{ROOT} is {space}, an empty space; there is nothing to act on")
        self._ways = {name: way for name, (way, _) in leaves.items()}
        parts = {name: _part(name, leaf, config) for name, (_, leaf) in leaves.items()}
        for name in config.channels:
            images = [image for image, part in parts.items() if isinstance(part, ImagePart)]
            if name not in images:
                known = nearest(name, images) if images else "the space has no images"
                raise ConfigError(f"SpaceInputConfig.channels names {name!r}; {known}")
        self.parts = nn.ModuleDict(parts)
        self.config = MultimodalInputConfig(
            modalities={name: part.config for name, part in parts.items()},
            min_padding=config.min_padding,
            num_channels=config.num_channels,
        )

    def forward(self, observations: Any) -> dict[str, Tensor]:
        """Read a batch of observations.

        Args:
            observations: nested as the space is; each leaf a tensor (B, ...) of its space's shape. Dtypes are
                free: RLlib turns some into others on the way.

        Returns:
            Each modality's input, by the part's name.
        """
        inputs = {}
        for name, part in self.parts.items():
            leaf = observations
            for step in self._ways[name]:
                leaf = leaf[step]
            inputs[name] = part(leaf)
        return inputs


class Part(nn.Module, ABC):
    """A leaf of a space.

    Attributes:
        config: of the modality it is.
    """

    config: ModalityInputConfig

    @abstractmethod
    def forward(self, leaf: Tensor) -> Tensor:
        """(B, ...), as the environment gives it, to what the modality's adapter takes."""


class FeaturesPart(Part):
    """Numbers in rows: (B,), (B, F) or (B, M, F) to (B, M, F) float32.

    Args:
        low: least values, -inf where there is no bound; its shape is that of an observation.
        high: largest values.
        config: widths.
    """

    def __init__(self, low: NDArray[Any], high: NDArray[Any], config: SpaceInputConfig) -> None:
        super().__init__()
        self.shape = low.shape if low.ndim == 2 else (1, low.size)
        self.config = FeaturesInputConfig(
            num_features=self.shape[1],
            num_rows=self.shape[0],
            num_channels=config.num_own_channels,
            num_hidden_channels=config.num_hidden_channels,
            activation=config.activation,
        )
        self.scale = Scale(low.reshape(self.shape), high.reshape(self.shape), centred=True)

    def forward(self, leaf: Tensor) -> Tensor:
        """See the class."""
        return cast(Tensor, self.scale(leaf.reshape(len(leaf), *self.shape)))


class ImagePart(Part):
    """Images: (B, H, W, C), (B, C, H, W) or (B, H, W) to (B, C, H, W) float32.

    Args:
        low: least values, its shape is that of an image.
        high: largest values.
        axis: which holds the channels; of an image with two axes it does not matter.
        config: widths, and how many tokens.
    """

    def __init__(
        self, low: NDArray[Any], high: NDArray[Any], axis: ChannelAxis, config: SpaceInputConfig
    ) -> None:
        super().__init__()
        self.axis, self.has_channels = axis, low.ndim == 3
        shape = low.shape if self.has_channels else (*low.shape, 1)
        if self.has_channels and axis is ChannelAxis.FIRST:
            shape = (*low.shape[1:], low.shape[0])
        height, width, num_pixel_channels = shape
        patch, cells = _patches(height, width, config.most_image_tokens)
        self.config = ImageInputConfig(
            num_pixel_channels=num_pixel_channels,
            preprocessing=PatchesConfig(patch, config.num_pixel_channels),
            # An axis of a single cell has no highest frequency; two is the fewest that have.
            position=FourierPositionConfig(tuple(max(n, 2) for n in cells), config.num_position_bands),
        )
        self.scale = Scale(low.min(), high.max(), centred=False)

    def forward(self, leaf: Tensor) -> Tensor:
        """See the class."""
        images = cast(Tensor, self.scale(leaf))
        if not self.has_channels:
            return images.unsqueeze(1)
        return images if self.axis is ChannelAxis.FIRST else images.movedim(-1, 1)


class CategoriesPart(Part):
    """Categories: (B,) or (B, ...) of any integer type to (B, V) int64, counted from 0.

    Args:
        num_values: of each variable; its shape is that of an observation.
        start: the least value of each.
        config: widths.
    """

    start: Tensor

    def __init__(
        self, num_values: NDArray[np.integer], start: NDArray[np.integer], config: SpaceInputConfig
    ) -> None:
        super().__init__()
        self.config = CategoriesInputConfig(
            tuple(int(n) for n in num_values.flat), num_channels=config.num_own_channels
        )
        self.register_buffer("start", torch.from_numpy(start.astype(np.int64).ravel()), persistent=False)

    def forward(self, leaf: Tensor) -> Tensor:
        """See the class."""
        return leaf.reshape(len(leaf), -1).long() - self.start


class Scale(nn.Module):
    """Numbers to about unit size, by their bounds where there are any, else by symlog.

    Args:
        low: least values, or one for all of them; -inf where there is no bound.
        high: largest values, of the same shape.
        centred: whether bounds become -1 and 1, or 0 and 1.
    """

    low: Tensor
    factor: Tensor
    is_bounded: Tensor

    def __init__(self, low: Any, high: Any, *, centred: bool) -> None:
        super().__init__()
        lowest, highest = np.asarray(low, np.float64), np.asarray(high, np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            width = highest - lowest
        bounded = width <= WIDEST
        self.centred = centred
        # Where the bounds are equal so is the number, and 1 keeps it from 0 / 0.
        factor = 1 / np.where(bounded & (width > 0), width, 1.0)
        for name, array in (("low", np.where(bounded, lowest, 0.0)), ("factor", factor)):
            self.register_buffer(name, torch.tensor(array, dtype=torch.float32), persistent=False)
        self.register_buffer("is_bounded", torch.tensor(bounded), persistent=False)
        self.all_bounded = bool(bounded.all())

    def forward(self, x: Tensor) -> Tensor:
        """Any shape that broadcasts with the bounds', to float32."""
        x = x.float()
        scaled = (x - self.low) * self.factor
        scaled = 2 * scaled - 1 if self.centred else scaled
        return scaled if self.all_bounded else torch.where(self.is_bounded, scaled, symlog(x))


def symlog(x: Tensor) -> Tensor:
    """sign(x) ln(1 + |x|), of any shape."""
    return x.sign() * x.abs().log1p()


def _leaves(
    space: gym.Space, name: str, way: tuple[Any, ...]
) -> Iterator[tuple[str, tuple[tuple[Any, ...], gym.Space]]]:
    """The parts' names, and for each the keys that lead to it and its space."""
    if isinstance(space, gym.spaces.Dict):
        inner: Any = space.spaces.items()
    elif isinstance(space, gym.spaces.Tuple):
        inner = enumerate(space.spaces)
    else:
        yield name, (way, space)
        return
    for key, subspace in inner:
        # A dot parts the names of torch's modules, and a slash those of ours.
        step = quote(str(key), safe="").replace(".", "%2E")
        yield from _leaves(subspace, f"{name}/{step}", (*way, key))


def _part(name: str, space: gym.Space, config: SpaceInputConfig) -> Part:
    """The part that a leaf is, or :class:`SpaceError`."""
    match space:
        case gym.spaces.Discrete():
            return CategoriesPart(np.array([space.n]), np.array([space.start]), config)
        case gym.spaces.MultiDiscrete():
            return CategoriesPart(space.nvec, np.broadcast_to(space.start, space.nvec.shape), config)
        case gym.spaces.MultiBinary():
            low, high = np.zeros(space.shape), np.ones(space.shape)
            whole = True
        case gym.spaces.Box():
            low, high, whole = space.low, space.high, not np.issubdtype(space.dtype, np.floating)
        case _:
            raise SpaceError(
                f"{name} is a {type(space).__name__} space, which has no fixed number of tokens: leave it "
                "out, with gymnasium.wrappers.FilterObservation, or encode it as a Box or MultiDiscrete, "
                "with gymnasium.wrappers.TransformObservation"
            )
    if low.size == 0:
        raise SpaceError(f"{name} is {space}, which holds no numbers: leave it out")
    if low.ndim > 3:
        raise SpaceError(
            f"{name} is a Box of {low.ndim} axes, {low.shape}; images have 3 and tables 2: put several "
            "images together along their channels, with gymnasium.wrappers.TransformObservation"
        )
    if low.ndim == 3 or (low.ndim == 2 and whole):
        axis = config.channels.get(name) or _channel_axis(low.shape)
        return ImagePart(low, high, axis, config)
    return FeaturesPart(low, high, config)


def _channel_axis(shape: tuple[int, ...]) -> ChannelAxis:
    """Which axis is the odd one out: of a square image it is evident, else it is the shorter end."""
    first, last = shape[0], shape[-1]
    if len(shape) == 2 or first == shape[1]:
        return ChannelAxis.LAST
    return ChannelAxis.FIRST if shape[1] == last or first < last else ChannelAxis.LAST


def _patches(height: int, width: int, most: int) -> tuple[int, tuple[int, int]]:
    """Pixels along a patch, and the patches along both axes, such that there are no more than ``most``."""
    patch = 1
    while math.ceil(height / patch) * math.ceil(width / patch) > most:
        patch += 1
    return patch, (math.ceil(height / patch), math.ceil(width / patch))
