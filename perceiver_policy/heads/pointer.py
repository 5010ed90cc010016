"""The order head: which verb, and which row a targeting verb points at.

The policy of one unit is p(verb) p(target | verb). The pointer scores row j for unit i and verb v as

    q(iv)·k(j) / √d  +  w(iv)·g(ij)

with q, w linear in the decoded query of i plus an embedding of v, k linear in the token of row j, and
g the embedded geometry of the pair. (Pointer networks, arXiv:1506.03134; AlphaStar's target-unit head.)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from perceiver_policy.attention import MLP
from perceiver_policy.heads.categorical import mask_logits
from perceiver_policy.pairs import Pairs
from perceiver_policy.policy_config import OrderHeadConfig

NO_OP = 0  # the verb every slot may fall back on
NO_TARGET = 0  # the row named by verbs that need none


def pointer_logits(queries: Tensor, keys: Tensor) -> Tensor:
    """q·k / √d: (B, M, N) from queries (B, M, d) and keys (B, N, d)."""
    return torch.bmm(queries / math.sqrt(keys.shape[-1]), keys.transpose(1, 2))


class PointerOrderHead(nn.Module):
    """Verb logits, and target logits given a verb.

    Args:
        config: widths and initial scale.
        num_query_channels: Q, width of decoded queries and of tokens.
        num_pair_channels: P, width of embedded geometry.
        num_verbs: V.
        num_target_verbs: V_t, the last of the verbs.
    """

    def __init__(
        self,
        config: OrderHeadConfig,
        *,
        num_query_channels: int,
        num_pair_channels: int,
        num_verbs: int,
        num_target_verbs: int,
    ) -> None:
        super().__init__()
        self.first_target_verb = num_verbs - num_target_verbs
        self.widths = (config.num_key_channels, num_pair_channels)
        self.verb = MLP(
            num_query_channels, config.num_verb_hidden_channels, num_verbs, activation=config.activation
        )
        self.key = nn.Linear(num_query_channels, config.num_key_channels, bias=False)
        self.pointer = nn.Linear(num_query_channels, sum(self.widths))
        self.target_verb = nn.Embedding(num_target_verbs, sum(self.widths))
        for last in (self.verb.last, self.pointer):
            nn.init.orthogonal_(last.weight, gain=config.init_gain)
            nn.init.zeros_(last.bias)
        nn.init.normal_(self.target_verb.weight, std=config.init_gain / math.sqrt(sum(self.widths)))

    def needs_target(self, verb: Tensor) -> Tensor:
        """Which verbs (...) int64 point at a row: (...) bool."""
        return verb >= self.first_target_verb

    def verb_logits(self, decoded: Tensor, verb_mask: Tensor) -> Tensor:
        """(B, A, V) float, masked, from decoded queries (B, A, Q) and the mask (B, A, V) bool."""
        return mask_logits(self.verb(decoded), verb_mask)

    def target_logits(
        self, decoded: Tensor, tokens: Tensor, pairs: Pairs, verb: Tensor, target_mask: Tensor
    ) -> Tensor:
        """Score rows for the verbs given.

        Args:
            decoded: (B, A, Q) float.
            tokens: (B, U, Q) float, the rows' tokens.
            pairs: embedded geometry of the controlled units and the rows.
            verb: (B, A) int64. Verbs without a target get row :data:`NO_TARGET` for certain.
            target_mask: (B, A, V_t, U) bool, True where a targeting verb may point.

        Returns:
            (B, A, U) float, masked.
        """
        target_verb = (verb - self.first_target_verb).clamp_min(0)
        query = self.pointer(decoded) + self.target_verb(target_verb)
        by_token, by_pair = query.split(self.widths, dim=-1)
        logits = pointer_logits(by_token, self.key(tokens))
        logits = logits + pairs.score(by_pair)
        needs_target = self.needs_target(verb).unsqueeze(-1)
        num_units = tokens.shape[1]
        legal = target_mask.gather(2, target_verb[..., None, None].expand(-1, -1, 1, num_units)).squeeze(2)
        no_target = torch.arange(num_units, device=verb.device) == NO_TARGET
        logits = logits.masked_fill(~needs_target, 0.0)
        return mask_logits(logits, torch.where(needs_target, legal, no_target))
