"""UnitSetPolicy: a unit set in; for every unit commanded an order, and a value, out. Pure torch.

    unit rows → tokens → encoder → latents ┐
    controlled units' tokens + geometry  → decoder → verb logits; pointer over the rows
    learned value query                  →         → value

What flows in (B the batch; U, A any sizes, different from call to call if need be)::

    units            (B, U, F) float      unit_type  (B, U) int64     unit_mask  (B, U) bool
    controlled       (B, A) int64         controlled_mask (B, A) bool
    verb_mask        (B, A, V) bool       target_mask (B, A, V_t, U) bool     scalars (B, S) float
    state_units, state_unit_type, state_unit_mask    only for the value, only if ``critic`` is ``state``

Masks: True means present or allowed. What flows out are orders (B, A, 2) int64: a verb, and the row it
points at (0 for verbs without a target). A slot that commands no unit always gets verb 0, NO_OP, with
log-probability and entropy exactly 0.

With ``sight: time`` none of it reaches the actor but the time, its own row's number and the masks of what is
legal (:mod:`perceiver_policy.inputs.open_loop`), and the shared critic sees no more.

With ``memory`` the policy is recurrent: the encoder starts from the learned latents plus the normalised
latents of the step before, the state (B, N, D), which is 0 before the first step. Without it there is no
state, and observations are unrelated to each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from perceiver_policy.config import Config
from perceiver_policy.core import PerceiverDecoder, PerceiverEncoder
from perceiver_policy.critics import ObservationCritic, StateCritic
from perceiver_policy.heads import categorical
from perceiver_policy.heads.pointer import NO_OP, NO_TARGET, PointerOrderHead
from perceiver_policy.hub import HubModel
from perceiver_policy.inputs.open_loop import time_only
from perceiver_policy.inputs.unit_set import PairGeometry, UnitSetInput
from perceiver_policy.pairs import Pairs
from perceiver_policy.policy_config import Critic, Sight, UnitSetPolicyConfig
from perceiver_policy.queries.units import UnitQuery

Observation = Mapping[str, Tensor]

ACTOR_KEYS = (
    "units",
    "unit_type",
    "unit_mask",
    "controlled",
    "controlled_mask",
    "verb_mask",
    "target_mask",
    "scalars",
)


class Orders(NamedTuple):
    """Orders chosen, and the logits they were drawn from."""

    orders: Tensor  # (B, A, 2) int64: verb, target row
    log_prob: Tensor  # (B, A)
    verb_logits: Tensor  # (B, A, V)
    target_logits: Tensor  # (B, A, U), given the verb chosen
    state: Tensor | None = None  # (B, N, D), for the next step of a policy with memory


class Evaluation(NamedTuple):
    """Orders given, as the policy would have chosen them."""

    verb_logits: Tensor  # (B, A, V)
    target_logits: Tensor  # (B, A, U), given the verb of the order
    log_prob: Tensor  # (B, A)
    entropy: Tensor  # (B, A): H(verb) + H(target | the order's verb)
    value: Tensor  # (B,)


@dataclass(frozen=True, eq=False)
class PolicyOutput:
    """One pass over observations: all that is needed to draw orders, to score them, and for the value."""

    policy: UnitSetPolicy
    observation: Observation
    latents: Tensor  # (B, N, D)
    verb_logits: Tensor  # (B, A, V), masked
    _tokens: Tensor  # (B, U, C)
    _pairs: Pairs
    _answers: Tensor  # (B, A, C): the decoder's answers, one per slot
    _value_answer: Tensor | None  # (B, C): its answer to the value query, which a state critic does without

    def target_logits(self, verb: Tensor) -> Tensor:
        """(B, A, U) float, masked, given verbs (B, A) int64. For verbs without a target: 0 at row 0,
        masked elsewhere."""
        return self.policy.order_head.target_logits(
            self._answers, self._tokens, self._pairs, verb, self.observation["target_mask"]
        )

    @property
    def value(self) -> Tensor:
        """(B,) float, in the units of the reward. Computed when asked for."""
        if self.policy.observation_critic is None or self._value_answer is None:
            return self.policy.value(self.observation)  # a state critic has no memory
        return self.policy.observation_critic(self._value_answer)

    def choose(self, *, deterministic: bool, generator: torch.Generator | None = None) -> Orders:
        """Draw orders, or take the likeliest verb and then its likeliest target."""

        def choice(logits: Tensor) -> Tensor:
            return logits.argmax(-1) if deterministic else categorical.sample(logits, generator)

        verb = choice(self.verb_logits)
        target_logits = self.target_logits(verb)
        target = choice(target_logits)
        verb_log_prob, _ = categorical.log_prob_and_entropy(self.verb_logits, verb)
        target_log_prob, _ = categorical.log_prob_and_entropy(target_logits, target)
        return Orders(
            torch.stack((verb, target), dim=-1),
            verb_log_prob + target_log_prob,
            self.verb_logits,
            target_logits,
            self.latents if self.policy.config.memory else None,
        )

    def evaluate(self, orders: Tensor) -> Evaluation:
        """Score orders (B, A, 2) int64; the target of a verb without one is ignored."""
        verb, target = orders.unbind(-1)
        target_logits = self.target_logits(verb)
        target = target.masked_fill(~self.policy.order_head.needs_target(verb), NO_TARGET)
        verb_log_prob, verb_entropy = categorical.log_prob_and_entropy(self.verb_logits, verb)
        target_log_prob, target_entropy = categorical.log_prob_and_entropy(target_logits, target)
        return Evaluation(
            self.verb_logits,
            target_logits,
            verb_log_prob + target_log_prob,
            verb_entropy + target_entropy,
            self.value,
        )


class UnitSetPolicy(nn.Module, HubModel):
    """Perceiver IO from unit sets to orders; see the module docstring.

    No weight depends on U or A: one set of weights plays any number of units.

    Args:
        config: the whole model.
    """

    config_class: ClassVar[type[Config]] = UnitSetPolicyConfig

    def __init__(self, config: UnitSetPolicyConfig) -> None:
        super().__init__()
        self.config = config
        num_channels = config.unit_input.num_channels
        self.unit_input = UnitSetInput.of_policy(config)
        self.pair_geometry = PairGeometry(config.pair, config.geometry, config.unit_input.length_scale)
        self.encoder = PerceiverEncoder(config.encoder, num_channels)
        self.memory_norm = nn.LayerNorm(config.encoder.num_latent_channels) if config.memory else None
        self.unit_query = UnitQuery(num_channels, 2 * config.pair.num_channels)
        self.decoder = PerceiverDecoder(config.decoder, num_channels, config.encoder.num_latent_channels)
        self.order_head = PointerOrderHead(
            config.order_head,
            num_query_channels=num_channels,
            num_pair_channels=config.pair.num_channels,
            num_verbs=config.num_verbs,
            num_target_verbs=config.num_target_verbs,
        )
        observes = config.critic is Critic.OBSERVATION
        self.observation_critic = ObservationCritic(config) if observes else None
        self.state_critic = None if observes else StateCritic(config)

    @property
    def critic(self) -> ObservationCritic | StateCritic:
        """The value function, whichever it is."""
        critic = self.observation_critic or self.state_critic
        assert critic is not None
        return critic

    def optional_weights(self) -> frozenset[str]:
        """The critic's statistics: exports from before there were any load with mean 0 and deviation 1."""
        (name,) = (name for name, module in self.named_children() if module is self.critic)
        return frozenset(f"{name}.{statistic}" for statistic in self.critic.initial_statistics())

    def initial_state(self, batch_size: int) -> Tensor | None:
        """(batch_size, N, D) float of zeros, the state before the first step; None without memory."""
        if not self.config.memory:
            return None
        return self.encoder.latents.new_zeros(batch_size, *self.encoder.latents.shape)

    def forward(
        self,
        observation: Observation,
        state: Tensor | None = None,
        *,
        num_steps: int = 1,
        begins: Tensor | None = None,
    ) -> PolicyOutput:
        """Read observations: everything that does not depend on the orders.

        Args:
            observation: see the module docstring.
            state: (B / num_steps, N, D) float, of the step before the first; None: the initial one.
            num_steps: T. With memory the batch is B / T sequences of T steps each, step after step.
            begins: (B,) bool, True where a battle begins: what was before it is forgotten. None: nowhere.
        """
        observation = self._seen(observation)
        units, unit_mask = observation["units"], observation["unit_mask"]
        controlled_mask = observation["controlled_mask"]
        select, controlled = self._controlled(observation)
        tokens, latents = self._encode(observation, controlled, state, num_steps, begins)
        pairs = self.pair_geometry(units, unit_mask, controlled, select)
        queries = self.unit_query(tokens, pairs.pool(), select)
        value_answer = None
        if self.observation_critic is None:
            answers = self.decoder(queries, latents)
        else:
            value_query = self.observation_critic.query().expand(len(units), -1, -1)
            answers = self.decoder(torch.cat((queries, value_query), dim=1), latents)
            answers, value_answer = answers[:, :-1], answers[:, -1]
        verb_mask = torch.where(
            controlled_mask.unsqueeze(-1),
            observation["verb_mask"],
            torch.arange(self.config.num_verbs, device=units.device) == NO_OP,
        )
        verb_logits = self.order_head.verb_logits(answers, verb_mask)
        return PolicyOutput(self, observation, latents, verb_logits, tokens, pairs, answers, value_answer)

    @torch.no_grad()
    def act(
        self,
        observation: Observation,
        *,
        deterministic: bool,
        generator: torch.Generator | None = None,
        state: Tensor | None = None,
    ) -> Orders:
        """Choose orders, without gradients.

        Args:
            observation: see the module docstring; ``state_*`` is not needed.
            deterministic: the likeliest verb and its likeliest target, instead of a draw.
            generator: source of the draws.
            state: (B, N, D), what the step before returned as such; None: the initial one, or no memory.
        """
        output = self.forward(observation, state)
        return output.choose(deterministic=deterministic, generator=generator)

    def evaluate_orders(
        self, observation: Observation, orders: Tensor, state: Tensor | None = None, *, num_steps: int = 1
    ) -> Evaluation:
        """Score orders (B, A, 2) int64 that were given on these observations, with gradients; the other
        arguments are as for :meth:`forward`."""
        return self.forward(observation, state, num_steps=num_steps).evaluate(orders)

    def value(
        self,
        observation: Observation,
        state: Tensor | None = None,
        *,
        num_steps: int = 1,
        begins: Tensor | None = None,
    ) -> Tensor:
        """(B,) float, in the units of the reward, by no more computation than it needs; arguments as for
        :meth:`forward`. With ``critic: state`` only ``state_*`` and ``scalars`` are read.

        Raises:
            ValueError: ``critic`` is ``state`` and the observation has none.
        """
        if self.state_critic is not None:
            return self.state_critic(observation)
        assert self.observation_critic is not None
        observation = self._seen(observation)
        _, latents = self._encode(observation, self._controlled(observation)[1], state, num_steps, begins)
        query = self.observation_critic.query()
        return self.observation_critic(self.decoder(query, latents)[:, 0])

    def _seen(self, observation: Observation) -> Observation:
        """What the actor may read."""
        if self.config.sight is Sight.UNITS:
            return observation
        return time_only(observation, self.config.time_columns, self.config.num_unit_types)

    def _controlled(self, observation: Observation) -> tuple[Tensor, Tensor]:
        """(B, A, U) float, 1 at the row each slot commands, and those rows, (B, A, F) float."""
        units = observation["units"]
        rows = torch.arange(units.shape[1], device=units.device)
        select = observation["controlled"].unsqueeze(-1) == rows
        select = (select & observation["controlled_mask"].unsqueeze(-1)).to(units.dtype)
        return select, torch.bmm(select, units)

    def _encode(
        self,
        observation: Observation,
        controlled: Tensor,
        state: Tensor | None,
        num_steps: int,
        begins: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """The rows' tokens (B, U, C) and the latents (B, N, D)."""
        num_controlled = observation["controlled_mask"].sum(1, keepdim=True)
        tokens, inputs, mask = self.unit_input(
            observation["units"],
            observation["unit_type"],
            observation["unit_mask"],
            observation["scalars"],
            controlled.sum(1) / num_controlled.clamp_min(1),
        )
        if self.memory_norm is None:
            return tokens, self.encoder(inputs, mask)
        steps = inputs.unflatten(0, (-1, num_steps)), mask.unflatten(0, (-1, num_steps))
        state = self.initial_state(len(steps[0])) if state is None else state
        latents = []
        remembered = None if begins is None else ~begins.unflatten(0, (-1, num_steps))[..., None, None]
        for step in range(num_steps):
            if remembered is not None:
                state = state * remembered[:, step]
            start = self.encoder.latents + self.memory_norm(state)
            state = self.encoder(steps[0][:, step], steps[1][:, step], start)
            latents.append(state)
        return tokens, torch.stack(latents, dim=1).flatten(0, 1)
