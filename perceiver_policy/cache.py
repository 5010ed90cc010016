"""Keys and values that attention has already computed, kept for the queries that come later."""

from __future__ import annotations

import torch
from torch import Tensor


class KeyValueCache:
    """The projected keys and values of one attention, in sequence order.

    Storage is allocated at the first :meth:`append` and written in place: for inference, not for training.

    Args:
        capacity: most keys it will hold.

    Attributes:
        length: keys it holds.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        self._storage: tuple[Tensor, Tensor] | None = None

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Add N keys and values, and return all.

        Args:
            key: (B, heads, N, d) float.
            value: (B, heads, N, d_v) float.

        Returns:
            (B, heads, length, d) and (B, heads, length, d_v), views that later calls write into.

        Raises:
            ValueError: more keys than the capacity.
        """
        end = self.length + key.shape[2]
        if end > self.capacity:
            raise ValueError(
                f"the cache holds {self.length} of at most {self.capacity} keys and is given {key.shape[2]} "
                "more"
            )
        if self._storage is None:
            self._storage = (self._allocate(key), self._allocate(value))
        keys, values = self._storage
        keys[:, :, self.length : end] = key
        values[:, :, self.length : end] = value
        self.length = end
        return keys[:, :, :end], values[:, :, :end]

    def truncate(self, length: int) -> None:
        """Forget all but the first ``length`` keys."""
        self.length = min(self.length, length)

    def _allocate(self, like: Tensor) -> Tensor:
        batch, heads, _, channels = like.shape
        return torch.empty(batch, heads, self.capacity, channels, dtype=like.dtype, device=like.device)


class SequenceCaches:
    """What a Perceiver AR has computed of a sequence, for the tokens that come next.

    Args:
        max_length: most tokens the sequence will have.
        num_latents: N, most latents at a time.
        num_layers: self-attention layers.

    Attributes:
        cross: of the cross-attention to the tokens.
        layers: of each layer of the latents' self-attention.
    """

    def __init__(self, max_length: int, num_latents: int, num_layers: int) -> None:
        self.cross = KeyValueCache(max_length)
        self.layers = [KeyValueCache(num_latents) for _ in range(num_layers)]

    @property
    def num_tokens(self) -> int:
        """Tokens seen."""
        return self.cross.length

    @property
    def num_latents(self) -> int:
        """Latents, of the last of them, that those to come attend to."""
        return self.layers[0].length

    def rewind(self, num_tokens: int) -> None:
        """Forget all but the first ``num_tokens`` tokens, and all latents."""
        self.cross.truncate(num_tokens)
        for layer in self.layers:
            layer.truncate(0)
