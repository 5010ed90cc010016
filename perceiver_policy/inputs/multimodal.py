"""Several modalities as one sequence of inputs: sound, video and a label, or a map and its units.

The tokens of each modality are brought to one width by channels of its own and follow one another in the
order of the sorted names. (Perceiver IO, arXiv:2107.14795, section 4.3; Perceiver, arXiv:2103.03206,
section 4.2.) Two ways of taking inputs away are for training:

    masking   a modality's tokens are replaced by its trainable mask token, and the model is to find out what
              they were: the released video model classifies by reconstructing a masked label
    dropout   an example goes without the modality, and none of its tokens is attended to
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from perceiver_policy.config import Config, ConfigError, nearest
from perceiver_policy.inputs.adapter import InputAdapter
from perceiver_policy.inputs.audio import AudioInputConfig, MelInputConfig
from perceiver_policy.inputs.categories import CategoriesInputConfig
from perceiver_policy.inputs.features import FeaturesInputConfig
from perceiver_policy.inputs.flow import FlowInputConfig
from perceiver_policy.inputs.image import ImageInputConfig
from perceiver_policy.inputs.label import LabelInputConfig
from perceiver_policy.inputs.points import PointsInputConfig
from perceiver_policy.inputs.text import TextInputConfig
from perceiver_policy.inputs.vectors import VectorsInputConfig
from perceiver_policy.inputs.video import VideoInputConfig
from perceiver_policy.modalities import ChannelPadding, by_name, check_names
from perceiver_policy.tokens import Tokens

MASK_INIT_STD = 0.02

ModalityInputConfig = (
    VectorsInputConfig
    | ImageInputConfig
    | FlowInputConfig
    | VideoInputConfig
    | AudioInputConfig
    | MelInputConfig
    | TextInputConfig
    | PointsInputConfig
    | LabelInputConfig
    | FeaturesInputConfig
    | CategoriesInputConfig
)
"""What a modality of :class:`MultimodalInputConfig` may be."""


class MaskUnit(StrEnum):
    """What is masked together."""

    EXAMPLE = "example"  # all of an example's tokens of the modality
    TOKEN = "token"  # each token by itself, as the released models' code does


@dataclass(frozen=True)
class MultimodalInputConfig(Config):
    """The modalities, by name, and what may be missing of them."""

    kind: ClassVar[str] = "multimodal"
    minimum: ClassVar[Mapping[str, float]] = {"min_padding": 0, "mask_probability": 0.0, "dropout": 0.0}

    modalities: dict[str, ModalityInputConfig] = field(default_factory=lambda: {"label": LabelInputConfig()})
    min_padding: int = 4  # fewest channels appended to a modality's tokens
    num_channels: int | None = None  # width of the tokens; None: the widest modality's and min_padding
    mask_probability: dict[str, float] = field(default_factory=dict)  # of modalities with a mask token
    mask_unit: MaskUnit = MaskUnit.EXAMPLE
    mask_in_evaluation: tuple[str, ...] = ()  # modalities masked not only while training
    dropout: dict[str, float] = field(default_factory=dict)  # probability, while training, of no such tokens
    optional: tuple[str, ...] = ()  # modalities the inputs may come without

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names(self.modalities, f"{type(self).__name__}.modalities")
        for name in ("mask_probability", "dropout"):
            probabilities = getattr(self, name)
            self._require(all(p <= 1 for p in probabilities.values()), name, "probabilities are at most 1")
            self._require_among(name, self.modalities)
        self._require_among("optional", self.modalities)
        self._require_among("mask_in_evaluation", self.mask_probability)

    def _require_among(self, name: str, allowed: Iterable[str]) -> None:
        for modality in getattr(self, name):
            if modality not in allowed:
                known = ", ".join(sorted(allowed)) or "none, as mask_probability names no modality"
                raise ConfigError(
                    f"{type(self).__name__}.{name} names modality {modality!r}; allowed: {known}"
                )


class MultimodalInput(InputAdapter):
    """Tokens of several modalities, in the order of their sorted names.

    Args:
        config: modalities, masking and dropout.
        adapters: the modalities' own, as configured.

    Raises:
        ConfigError: other adapters than the configuration names, or too few channels for the widest.
    """

    def __init__(self, config: MultimodalInputConfig, adapters: Mapping[str, InputAdapter]) -> None:
        super().__init__()
        self.config = config
        self.adapters = by_name(adapters, config.modalities, "adapters")
        self.padding = ChannelPadding(
            {name: adapter.num_channels for name, adapter in adapters.items()},
            min_padding=config.min_padding,
            num_channels=config.num_channels,
            where=type(config).__name__,
        )
        self.num_channels = self.padding.num_channels
        self.mask_tokens = nn.ParameterDict(
            {name: torch.empty(self.num_channels) for name in sorted(config.mask_probability)}
        )
        for token in self.mask_tokens.values():
            nn.init.trunc_normal_(cast(Tensor, token), std=MASK_INIT_STD)

    def forward(self, inputs: Mapping[str, Any], mask: Mapping[str, Tensor] | Tensor | None = None) -> Tokens:
        """Make tokens.

        Args:
            inputs: each modality's inputs, as its adapter takes them. Those of the configuration's
                ``optional`` may be left out.
            mask: each modality's mask as its adapter takes it, for some or all of the modalities; or
                (B, M) bool of all tokens; True where an input is present. None when all are.

        Returns:
            Tokens with ``ranges``: where each modality is among them, the empty range if it was left out.

        Raises:
            ValueError: no dict, an unknown modality, a missing one that is not optional, none at all, batches
                of different sizes, or a mask of another shape or type.
        """
        masks = mask if isinstance(mask, Mapping) else {}
        self._check_names(inputs, masks)
        parts: dict[str, Tensor] = {}
        present: dict[str, Tensor | None] = {}
        for name, adapter in self.adapters.items():
            if name in inputs:
                tokens = adapter(inputs[name], masks.get(name))
                parts[name] = self._replace(name, self.padding(name, tokens.dense()))
                present[name] = self._drop(name, tokens)
        sizes = {name: len(part) for name, part in parts.items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"the modalities' batches differ in size: {sizes}")
        content = torch.cat(list(parts.values()), dim=1)
        together = _concatenate(parts, present)
        if isinstance(mask, Tensor):
            if mask.shape != content.shape[:2] or mask.dtype != torch.bool:
                raise ValueError(
                    f"the mask is {mask.dtype} {tuple(mask.shape)}; expected torch.bool "
                    f"{tuple(content.shape[:2])}, the tokens of all modalities, or one mask for each "
                    "modality in a dict"
                )
            together = mask if together is None else mask & together
        ranges, start = {}, 0
        for name in self.adapters:
            stop = start + (parts[name].shape[1] if name in parts else 0)
            ranges[name] = range(start, stop)
            start = stop
        return Tokens(content, together, ranges=ranges)

    def _check_names(self, inputs: Any, masks: Mapping[str, Tensor]) -> None:
        if not isinstance(inputs, Mapping):
            names = ", ".join(self.adapters)
            raise ValueError(f"inputs are a {type(inputs).__name__}; expected a dict of modalities: {names}")
        for name in inputs:
            if name not in self.adapters:
                raise ValueError(f"unknown modality {name!r}; {nearest(str(name), self.adapters)}")
        for name in masks:
            if name not in inputs:
                raise ValueError(f"there is a mask for modality {name!r} and no input; {_given(inputs)}")
        for name in self.adapters:
            if name not in inputs and name not in self.config.optional:
                raise ValueError(
                    f"modality {name!r} is missing; {_given(inputs)}. Pass it, or name it in the "
                    "configuration's optional modalities"
                )
        if not inputs:
            raise ValueError(f"no modality is given; allowed: {', '.join(self.adapters)}")

    def _replace(self, name: str, rows: Tensor) -> Tensor:
        """The modality's tokens (B, m, C), some replaced by its mask token."""
        probability = self.config.mask_probability.get(name, 0.0)
        active = self.training or name in self.config.mask_in_evaluation
        if not active or probability == 0:
            return rows
        size = rows.shape[1] if self.config.mask_unit is MaskUnit.TOKEN else 1
        replaced = torch.rand(len(rows), size, 1, device=rows.device) < probability
        return torch.where(replaced, self.mask_tokens[name].to(rows.dtype), rows)

    def _drop(self, name: str, tokens: Tokens) -> Tensor | None:
        """The modality's mask (B, m), False all along for the examples that go without it."""
        probability = self.config.dropout.get(name, 0.0)
        if not self.training or probability == 0:
            return tokens.mask
        size, device = tokens.content.shape[:2], tokens.content.device
        kept = (torch.rand(size[0], 1, device=device) >= probability).expand(size)
        return kept if tokens.mask is None else kept & tokens.mask


def _concatenate(parts: Mapping[str, Tensor], present: Mapping[str, Tensor | None]) -> Tensor | None:
    """The modalities' masks one after another, (B, M) bool; None if none has one."""
    if all(mask is None for mask in present.values()):
        return None
    full = {
        name: torch.ones(part.shape[:2], dtype=torch.bool, device=part.device) for name, part in parts.items()
    }
    masks = [full[name] if mask is None else mask for name, mask in present.items()]
    return torch.cat(masks, dim=1)


def _given(inputs: Iterable[str]) -> str:
    return f"given: {', '.join(sorted(inputs)) or 'none'}"
