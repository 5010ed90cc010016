"""The sequence pointer: selects units of a set one by one, until it picks the learned end token.

Step l scores unit j, and the end with its learned key k(end), by

    q(l)·k(j) / √d        q(l) = Q act(W x + S s(l))        s(l) = [mean of the keys chosen so far, n(l)/max]

with x the query of the whole choice, k linear in the unit's token, and n(l) how many units are chosen.
The rules are those of AlphaStar's selected-units head as AlphaStar Unplugged states them: no unit twice,
the end only once a unit is chosen (or none can be), and nothing but the end after the end.
(AlphaStar, Nature 575, supplement; AlphaStar Unplugged, arXiv:2308.03526; pointer networks,
arXiv:1506.03134.)

AlphaStar carries an LSTM from pick to pick. Here the state s(l) is a function of the set chosen so far
instead: what remains to be chosen does not depend, not even by rounding, on the order in which the rest
was, and the steps of a given selection, being known, are evaluated all at once instead of one by one.

The end's column is the last, U: logits are (..., U + 1). The log-probability is of the sequence, not of
the set: a set of n units has up to n! sequences.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from perceiver_policy.activation import ACTIVATIONS
from perceiver_policy.config import Config
from perceiver_policy.heads.categorical import log_prob_and_entropy, mask_logits, sample
from perceiver_policy.heads.pointer import pointer_logits

PAST_END = -1  # the index of steps that choose no unit


@dataclass(frozen=True)
class SequencePointerConfig(Config):
    """Widths and limits. AlphaStar's: 32 key channels, 256 hidden channels, 64 units."""

    kind: ClassVar[str] = "sequence_pointer"
    minimum: ClassVar[Mapping[str, float]] = {"init_gain": 0.0}

    num_key_channels: int = 32  # d, width of pointer queries and keys
    num_hidden_channels: int = 64
    max_selected: int = 64  # L, most units of one selection
    init_gain: float = 0.05  # of the pointer queries' last layer: small starts near uniform choices
    activation: str = "relu"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_known_activation()


class Selection(NamedTuple):
    """What was selected. L is the limit it was selected under."""

    indices: Tensor
    """(B, L) int64, the rows in the order chosen, :data:`PAST_END` from the end on."""
    mask: Tensor
    """(B, L) bool, steps taken: the units chosen, and the end where it was."""
    log_prob: Tensor
    """(B,) of the whole sequence, in nats."""
    logits: Tensor
    """(B, L, U + 1), masked."""
    selected: Tensor
    """(B, U) bool."""
    embedding: Tensor
    """(B, Q): the query, plus a projection of the mean of the chosen keys, for choices that come after. The
    query itself where nothing was selected."""


class Evaluation(NamedTuple):
    """What a selection is worth under the head."""

    log_prob: Tensor
    """(B,) of the whole sequence, in nats. Its gradient is the head's."""
    entropy: Tensor
    """(B,) sum over the steps taken of H(step | steps before), in nats. Averaged over selections drawn from
    the head, it is the entropy of sequences."""
    logits: Tensor
    """(B, L, U + 1), masked. ``kl_divergence(logits, other).sum(-1)`` compares two heads on a selection."""
    embedding: Tensor
    """(B, Q), as in :class:`Selection`."""


class SequencePointerHead(nn.Module):
    """Selects units one by one.

    Args:
        config: widths and limits.
        num_query_channels: Q, width of the query.
        num_token_channels: T, width of the units' tokens.
    """

    def __init__(
        self, config: SequencePointerConfig, *, num_query_channels: int, num_token_channels: int
    ) -> None:
        super().__init__()
        self.max_selected = config.max_selected
        self.key = nn.Linear(num_token_channels, config.num_key_channels, bias=False)
        self.end_key = nn.Parameter(torch.empty(config.num_key_channels))
        self.query = nn.Linear(num_query_channels, config.num_hidden_channels)
        self.state = nn.Linear(config.num_key_channels + 1, config.num_hidden_channels, bias=False)
        self.activation = ACTIVATIONS[config.activation]()
        self.pointer = nn.Linear(config.num_hidden_channels, config.num_key_channels)
        self.embedding = nn.Linear(config.num_key_channels, num_query_channels, bias=False)
        nn.init.normal_(self.end_key, std=1 / math.sqrt(config.num_key_channels))
        nn.init.orthogonal_(self.pointer.weight, gain=config.init_gain)
        nn.init.zeros_(self.pointer.bias)

    def select(
        self,
        query: Tensor,
        tokens: Tensor,
        allowed: Tensor,
        *,
        deterministic: bool,
        generator: torch.Generator | None = None,
        max_selected: int | None = None,
    ) -> Selection:
        """Select units, step by step.

        Args:
            query: (B, Q) float.
            tokens: (B, U, T) float, finite everywhere.
            allowed: (B, U) bool, True where a unit may be selected. Where none may, nothing is, with
                log-probability 0.
            deterministic: take the best choice of each step, else draw it.
            generator: what draws; torch's own if None.
            max_selected: L, the most units to select; the configured limit if None.

        Raises:
            ValueError: ``max_selected`` is below 1 or above the configured limit.
        """
        limit = self.max_selected if max_selected is None else max_selected
        if not 1 <= limit <= self.max_selected:
            raise ValueError(
                f"max_selected is {limit}; this head was made for 1 to {self.max_selected}: "
                "raise SequencePointerConfig.max_selected for more"
            )
        batch, num_units = allowed.shape
        keys, hidden = self._keys(tokens), self.query(query)
        taken = torch.zeros(batch, num_units + 1, dtype=torch.bool, device=allowed.device)
        choices: list[Tensor] = []
        logits: list[Tensor] = []
        while len(choices) < limit:
            step = self._step_logits(hidden, keys, allowed, taken.unsqueeze(1)).squeeze(1)
            choice = step.argmax(-1) if deterministic else sample(step, generator)
            choices.append(choice)
            logits.append(step)
            taken = taken.scatter(1, choice.unsqueeze(1), True)
            # Compiled code has no way out of the middle of a loop; the steps left cost it time only.
            if not torch.compiler.is_compiling() and bool(taken[:, -1].all()):
                break
        left = limit - len(choices)
        after = mask_logits(step.new_zeros(()), torch.arange(num_units + 1, device=step.device) == num_units)
        all_logits = torch.stack(logits + [after.expand_as(step)] * left, 1)
        all_choices = torch.stack(choices + [torch.full_like(choice, num_units)] * left, 1)
        is_end = all_choices == num_units
        return Selection(
            indices=all_choices.masked_fill(is_end, PAST_END),
            mask=is_end.cumsum(1) - is_end.long() == 0,
            log_prob=log_prob_and_entropy(all_logits, all_choices)[0].sum(1),
            logits=all_logits,
            selected=taken[:, :-1],
            embedding=self._embed(query, keys, taken[:, :-1]),
        )

    def evaluate(self, query: Tensor, tokens: Tensor, allowed: Tensor, indices: Tensor) -> Evaluation:
        """Log-probability and entropy of given selections, all steps in one pass.

        Args:
            query: (B, Q) float.
            tokens: (B, U, T) float, finite everywhere.
            allowed: (B, U) bool, as in :meth:`select`.
            indices: (B, L) int64, as :meth:`select` gives them: rows in the order chosen, then negative.
                A sequence that fills all L steps needs no end: L is its limit, and must be what it was
                selected under.

        An impossible sequence raises nothing: each step at a row that is not allowed or was chosen before,
        each row after the end, and an end that comes before a unit is chosen although one is allowed, adds
        about -1e9 to the log-probability. U names the end too; torch itself refuses indices above it.
        """
        num_units, num_steps = allowed.shape[1], indices.shape[1]
        choices = torch.where(indices < 0, num_units, indices)
        steps = torch.arange(num_steps, device=indices.device)
        # The step at which each row, and the end, was first chosen; L where it never was.
        first = torch.full((len(choices), num_units + 1), num_steps, device=indices.device)
        first = first.scatter_reduce(1, choices, steps.expand_as(choices), "amin")
        taken = first.unsqueeze(1) < steps.unsqueeze(1)
        keys = self._keys(tokens)
        logits = self._step_logits(self.query(query), keys, allowed, taken)
        log_prob, entropy = log_prob_and_entropy(logits, choices)
        embedding = self._embed(query, keys, first[:, :-1] < num_steps)
        return Evaluation(log_prob.sum(1), entropy.sum(1), logits, embedding)

    def _keys(self, tokens: Tensor) -> Tensor:
        """(B, U + 1, d): the units' keys, and the end's last."""
        keys = self.key(tokens)
        # Keys may be narrower than the parameter, under autocast.
        return torch.cat([keys, self.end_key.to(keys.dtype).expand(len(keys), 1, -1)], 1)

    def _step_logits(self, hidden: Tensor, keys: Tensor, allowed: Tensor, taken: Tensor) -> Tensor:
        """(B, S, U + 1) logits of S steps, from the hidden query (B, H), keys (B, U + 1, d), ``allowed``
        (B, U) and what was chosen before each step, ``taken`` (B, S, U + 1) bool."""
        chosen, ended = taken[..., :-1], taken[..., -1:]
        count = chosen.sum(-1, keepdim=True)
        state = torch.cat([_mean_of_chosen(keys, chosen), count.to(keys.dtype) / self.max_selected], -1)
        queries = self.pointer(self.activation(hidden.unsqueeze(1) + self.state(state)))
        queries = queries.masked_fill(ended, 0.0)  # all logits after the end are 0, or masked
        logits = pointer_logits(queries, keys)
        units = allowed.unsqueeze(1) & ~chosen & ~ended
        end = ended | (count > 0) | ~allowed.any(-1)[:, None, None]
        return mask_logits(logits, torch.cat([units, end], -1))

    def _embed(self, query: Tensor, keys: Tensor, selected: Tensor) -> Tensor:
        """(B, Q): the query (B, Q) with the keys (B, U + 1, d) of the units ``selected`` (B, U) folded in."""
        return query + self.embedding(_mean_of_chosen(keys, selected.unsqueeze(1)).squeeze(1))


def _mean_of_chosen(keys: Tensor, chosen: Tensor) -> Tensor:
    """(B, S, d): mean of the units' keys, of (B, U + 1, d), that are ``chosen`` (B, S, U) bool; 0 where none
    is."""
    # Summed in the order of rows, whatever the order of choice.
    return torch.bmm(chosen.to(keys.dtype), keys[:, :-1]) / chosen.sum(-1, keepdim=True).clamp_min(1)
