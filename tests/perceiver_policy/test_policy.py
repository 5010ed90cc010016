"""What must always hold of a policy over unit sets, whatever its weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor
from torch.nn.functional import pad

from envs import unit_set
from perceiver_policy import UnitSetPolicy
from perceiver_policy.critics import STATE_KEYS
from perceiver_policy.heads import categorical
from perceiver_policy.heads.categorical import MASKED
from perceiver_policy.policy import ACTOR_KEYS

MakeObservation = Callable[..., dict[str, Tensor]]
MakePolicy = Callable[..., UnitSetPolicy]

NUM_VERBS, FIRST_TARGET_VERB = unit_set.NUM_VERBS, unit_set.FIRST_TARGET_VERB
SIZES = pytest.mark.parametrize(("num_units", "num_slots"), [(1, 1), (6, 3), (11, 8), (4, 6)])


@pytest.fixture
def policy(make_policy: MakePolicy) -> UnitSetPolicy:
    return make_policy()


@SIZES
def test_the_observations_here_obey_the_contract(
    make_observation: MakeObservation, num_units: int, num_slots: int
) -> None:
    space = unit_set.observation_space(num_units, num_slots, num_unit_types=50, with_state=True)
    observation = make_observation(8, num_units, num_slots)
    for i in range(8):
        unit_set.validate_observation({key: value[i].numpy() for key, value in observation.items()}, space)


def test_keys_are_those_of_the_contract() -> None:
    assert (ACTOR_KEYS, STATE_KEYS) == (unit_set.ACTOR_KEYS, unit_set.STATE_KEYS)


@SIZES
@pytest.mark.parametrize("deterministic", [True, False])
def test_one_set_of_weights_gives_legal_orders_for_any_sizes(
    policy: UnitSetPolicy,
    make_observation: MakeObservation,
    num_units: int,
    num_slots: int,
    deterministic: bool,
) -> None:
    observation = make_observation(64, num_units, num_slots)
    orders = policy.act(observation, deterministic=deterministic).orders
    arrays = {key: value.numpy() for key, value in observation.items()}
    unit_set.validate_orders(orders.numpy(), arrays)
    assert (orders[~observation["controlled_mask"]] == 0).all()
    assert (orders[..., 1][orders[..., 0] < FIRST_TARGET_VERB] == 0).all()


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    num_units=st.integers(1, 12),
    num_slots=st.integers(1, 6),
    scale=st.floats(0, 50),
)
def test_a_masked_choice_has_probability_zero(
    seed: int, num_units: int, num_slots: int, scale: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(num_slots, num_units, generator=generator)
    allowed = torch.rand(num_slots, num_units, generator=generator) < 0.4
    allowed[torch.arange(num_slots), torch.randint(0, num_units, (num_slots,), generator=generator)] = True
    masked = categorical.mask_logits(logits, allowed)
    draws = categorical.sample(masked.expand(2000, -1, -1), generator)
    assert allowed.expand_as(masked).gather(1, draws.T).all()
    log_probs = torch.stack(
        [categorical.log_prob_and_entropy(masked, torch.full((num_slots,), c))[0] for c in range(num_units)],
        -1,
    )
    assert (log_probs.exp()[~allowed] == 0).all()
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(num_slots))


def test_slots_that_command_nothing_do_nothing_for_certain(
    policy: UnitSetPolicy, make_observation: MakeObservation
) -> None:
    observation = make_observation(16, 5, 4)
    dead = ~observation["controlled_mask"]
    assert dead.any()
    observation["verb_mask"][dead] = True  # whatever a broken environment may say
    observation["target_mask"][dead] = True
    choice = policy.act(observation, deterministic=False)
    evaluation = policy.evaluate_orders(observation, choice.orders)
    assert (choice.orders[dead] == 0).all()
    assert (choice.log_prob[dead] == 0).all()
    assert (evaluation.log_prob[dead] == 0).all()
    assert (evaluation.entropy[dead] == 0).all()


def test_an_observation_of_nothing_is_answered(
    policy: UnitSetPolicy, make_observation: MakeObservation
) -> None:
    observation = {key: torch.zeros_like(value) for key, value in make_observation(2, 4, 3).items()}
    evaluation = policy.evaluate_orders(observation, policy.act(observation, deterministic=False).orders)
    (evaluation.log_prob.sum() + evaluation.entropy.sum() + evaluation.value.sum()).backward()
    assert evaluation.value.isfinite().all()
    assert (evaluation.log_prob == 0).all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in policy.parameters())


def scored_targets(policy: UnitSetPolicy, observation: dict[str, Tensor], verb: int) -> Tensor:
    output = policy(observation)
    return output.target_logits(torch.full(observation["controlled"].shape, verb))


@pytest.mark.parametrize("critic", ["observation", "state"])
def test_permuting_rows_permutes_targets_and_nothing_else(
    make_policy: MakePolicy, make_observation: MakeObservation, critic: str
) -> None:
    policy = make_policy(critic=critic)
    observation = make_observation(8, 9, 4)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(3))
    permuted = {
        key: value[..., order] if key in ("unit_type", "unit_mask", "target_mask") else value
        for key, value in observation.items()
    }
    for key in ("units", "state_units", "state_unit_type", "state_unit_mask"):
        permuted[key] = observation[key][:, order]
    permuted["controlled"] = order.argsort()[observation["controlled"]] * observation["controlled_mask"]
    before, after = policy(observation), policy(permuted)
    torch.testing.assert_close(after.verb_logits, before.verb_logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after.value, before.value, rtol=1e-4, atol=1e-5)
    for verb in range(FIRST_TARGET_VERB, NUM_VERBS):
        living = observation["controlled_mask"]
        torch.testing.assert_close(
            scored_targets(policy, permuted, verb)[living],
            scored_targets(policy, observation, verb)[..., order][living],
            rtol=1e-4,
            atol=1e-5,
        )


@pytest.mark.parametrize("critic", ["observation", "state"])
def test_padding_changes_nothing(
    make_policy: MakePolicy, make_observation: MakeObservation, critic: str
) -> None:
    policy = make_policy(critic=critic)
    observation = make_observation(8, 6, 3)
    rows, slots = 5, 2
    padded = dict(observation)
    for key in ("units", "state_units"):
        padded[key] = pad(observation[key], (0, 0, 0, rows))
    for key in ("unit_type", "unit_mask", "state_unit_type", "state_unit_mask"):
        padded[key] = pad(observation[key], (0, rows))
    for key in ("controlled", "controlled_mask"):
        padded[key] = pad(observation[key], (0, slots))
    padded["verb_mask"] = pad(observation["verb_mask"], (0, 0, 0, slots))
    padded["verb_mask"][:, 3:, 0] = True
    padded["target_mask"] = pad(observation["target_mask"], (0, rows, 0, 0, 0, slots))
    before, after = policy(observation), policy(padded)
    torch.testing.assert_close(after.verb_logits[:, :3], before.verb_logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after.value, before.value, rtol=1e-4, atol=1e-5)
    for verb in range(NUM_VERBS):
        extended = scored_targets(policy, padded, verb)
        torch.testing.assert_close(
            extended[:, :3, :6], scored_targets(policy, observation, verb), rtol=1e-4, atol=1e-5
        )
        assert (extended[:, :3, 6:] == MASKED).all()


def test_what_masked_rows_hold_is_never_read(
    policy: UnitSetPolicy, make_observation: MakeObservation
) -> None:
    observation = make_observation(8, 9, 4)
    disturbed = {key: value.clone() for key, value in observation.items()}
    absent = ~observation["unit_mask"]
    disturbed["units"][absent] = 3.0
    disturbed["unit_type"][absent] = 7
    orders = policy.act(observation, deterministic=True).orders
    before, after = (policy.evaluate_orders(o, orders) for o in (observation, disturbed))
    for x, y in zip(before, after, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)


def test_position_matters_only_relative_to_the_observer(
    policy: UnitSetPolicy, make_observation: MakeObservation
) -> None:
    observation = make_observation(8, 9, 4)
    commanding = observation["controlled_mask"].any(-1)
    moved = dict(observation, units=observation["units"].clone())
    moved["units"][..., :2] += torch.tensor([13.0, -4.0])
    moved["units"] *= observation["unit_mask"].unsqueeze(-1)
    orders = policy.act(observation, deterministic=True).orders
    before, after = (policy.evaluate_orders(o, orders) for o in (observation, moved))
    for name in ("log_prob", "entropy", "value"):
        torch.testing.assert_close(
            getattr(before, name)[commanding], getattr(after, name)[commanding], rtol=1e-3, atol=1e-3
        )
    stretched = dict(observation, units=observation["units"].clone())
    stretched["units"][..., 0] *= 2.0
    assert (policy(stretched).verb_logits - before.verb_logits).abs().max() > 1e-2


def test_sampling_and_training_agree_on_log_probabilities(
    policy: UnitSetPolicy, make_observation: MakeObservation
) -> None:
    observation = make_observation(256, 9, 4)
    choice = policy.act(observation, deterministic=False)
    evaluation = policy.evaluate_orders(observation, choice.orders)
    assert (choice.orders[..., 0] >= FIRST_TARGET_VERB).any()
    torch.testing.assert_close(choice.log_prob, evaluation.log_prob, rtol=0, atol=1e-5)
    torch.testing.assert_close(choice.target_logits, evaluation.target_logits)
    assert not choice.log_prob.requires_grad
    assert evaluation.log_prob.requires_grad


def test_the_target_of_a_verb_without_one_is_ignored(
    policy: UnitSetPolicy, make_observation: MakeObservation
) -> None:
    observation = make_observation(8, 9, 4)
    orders = torch.zeros(8, 4, 2, dtype=torch.int64)
    pointed = orders.clone()
    pointed[..., 1] = 5
    torch.testing.assert_close(
        policy.evaluate_orders(observation, pointed).log_prob,
        policy.evaluate_orders(observation, orders).log_prob,
    )
    target_logits = policy.evaluate_orders(observation, pointed).target_logits
    assert (target_logits[..., 0] == 0).all()
    assert (target_logits[..., 1:] == MASKED).all()


def joint_distribution(
    policy: UnitSetPolicy, observation: dict[str, Tensor], slot: int
) -> dict[tuple[int, int], float]:
    """Probability of every legal order of one slot of the first observation, in float64."""
    output = policy(observation)
    verb_p = output.verb_logits[0, slot].detach().double().softmax(-1)
    joint = {}
    for verb in range(NUM_VERBS):
        target_p = scored_targets(policy, observation, verb)[0, slot].detach().double().softmax(-1)
        for target, p in enumerate((verb_p[verb] * target_p).tolist()):
            if p > 0:
                joint[verb, target] = p
    return joint


def test_sampling_frequencies_are_the_probabilities(
    policy: UnitSetPolicy, make_observation: MakeObservation
) -> None:
    one = make_observation(1, 9, 2, seed=7)
    many = {key: value.expand(20_000, *value.shape[1:]) for key, value in one.items()}
    orders = policy.act(many, deterministic=False, generator=torch.Generator().manual_seed(0)).orders
    for slot in range(2):
        joint = joint_distribution(policy, one, slot)
        assert sum(verb >= FIRST_TARGET_VERB for verb, _ in joint) > 3
        found, counts = np.unique(orders[:, slot].numpy(), axis=0, return_counts=True)
        observed = dict(zip(map(tuple, found.tolist()), counts.tolist(), strict=True))
        assert observed.keys() <= joint.keys()
        common = [order for order, p in joint.items() if p * 20_000 > 5]
        rest = 1 - sum(joint[order] for order in common)
        f_obs = [observed.get(order, 0) for order in common]
        f_exp = [joint[order] * 20_000 for order in common]
        if rest > 1e-9:
            f_obs.append(20_000 - sum(f_obs))
            f_exp.append(rest * 20_000)
        assert stats.chisquare(f_obs, f_exp, sum_check=False).pvalue > 0.01


def test_a_generator_makes_draws_repeatable(policy: UnitSetPolicy, make_observation: MakeObservation) -> None:
    observation = make_observation(64, 9, 4)

    def draw(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return policy.act(observation, deterministic=False, generator=generator).orders

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_greedy_takes_the_likeliest_verb_then_its_likeliest_target(
    policy: UnitSetPolicy, make_observation: MakeObservation
) -> None:
    observation = make_observation(16, 9, 4)
    choice = policy.act(observation, deterministic=True)
    assert torch.equal(choice.orders[..., 0], policy(observation).verb_logits.argmax(-1))
    assert torch.equal(choice.orders[..., 1], choice.target_logits.argmax(-1))


def test_log_probability_and_entropy_against_enumeration(
    policy: UnitSetPolicy, make_observation: MakeObservation
) -> None:
    observation = make_observation(1, 7, 3, seed=10)
    for slot in range(3):
        joint = joint_distribution(policy, observation, slot)
        verb_p: dict[int, float] = {}
        for (verb, _), p in joint.items():
            verb_p[verb] = verb_p.get(verb, 0.0) + p
        assert sum(joint.values()) == pytest.approx(1.0)
        verb_entropy = -sum(p * np.log(p) for p in verb_p.values())
        for order, p in joint.items():
            orders = torch.zeros(1, 3, 2, dtype=torch.int64)
            orders[0, slot] = torch.tensor(order)
            evaluation = policy.evaluate_orders(observation, orders)
            targets = [q / verb_p[order[0]] for (verb, _), q in joint.items() if verb == order[0]]
            entropy = verb_entropy - sum(q * np.log(q) for q in targets)
            assert evaluation.log_prob[0, slot].item() == pytest.approx(np.log(p), abs=1e-4)
            assert evaluation.entropy[0, slot].item() == pytest.approx(entropy, abs=1e-4)


def test_target_logits_depend_on_the_verb(policy: UnitSetPolicy, make_observation: MakeObservation) -> None:
    observation = make_observation(4, 9, 3)
    observation["target_mask"][:] = True
    attack, ability = (scored_targets(policy, observation, verb) for verb in unit_set.TARGET_VERBS)
    assert (attack - ability).abs().max() > 1e-2


def test_the_state_critic_never_leaks_into_the_actor(
    make_policy: MakePolicy, make_observation: MakeObservation
) -> None:
    policy = make_policy(critic="state")
    observation = make_observation(8, 7, 3)
    orders = policy.act(observation, deterministic=True).orders
    observation["state_units"].requires_grad_()
    evaluation = policy.evaluate_orders(observation, orders)
    actor = evaluation.log_prob.sum() + evaluation.entropy.sum()
    leaks = torch.autograd.grad(actor, observation["state_units"], retain_graph=True, allow_unused=True)
    assert [leak is None for leak in leaks] == [True]
    (grad,) = torch.autograd.grad(evaluation.value.sum(), observation["state_units"], retain_graph=True)
    assert grad.abs().max() > 0
    # Nor the other way: the value's gradient stays off the actor's weights.
    evaluation.value.sum().backward()
    assert policy.state_critic is not None
    critics = {id(p) for p in policy.state_critic.parameters()}
    assert all(p.grad is None for p in policy.parameters() if id(p) not in critics)
    assert all(p.grad is not None for p in policy.state_critic.parameters())
    disturbed = dict(observation, state_units=observation["state_units"].detach() + 1.0)
    again = policy.evaluate_orders(disturbed, orders)
    assert torch.equal(again.log_prob, evaluation.log_prob)
    assert not torch.equal(again.value, evaluation.value)


def test_the_state_is_needed_for_its_value_alone(
    make_policy: MakePolicy, make_observation: MakeObservation
) -> None:
    policy = make_policy(critic="state")
    observation = make_observation(4, 7, 3)
    acting = {key: observation[key] for key in ACTOR_KEYS}
    policy.act(acting, deterministic=False)
    with pytest.raises(ValueError, match=r"critic 'state' needs .*state_units"):
        policy.value(acting)
    torch.testing.assert_close(policy.value(observation), policy(observation).value)


@pytest.mark.parametrize("critic", ["observation", "state"])
def test_every_weight_learns(make_policy: MakePolicy, make_observation: MakeObservation, critic: str) -> None:
    policy = make_policy(critic=critic)
    observation = make_observation(64, 9, 4)
    evaluation = policy.evaluate_orders(observation, policy.act(observation, deterministic=False).orders)
    (evaluation.log_prob.sum() + evaluation.value.sum()).backward()
    idle = [
        name
        for name, p in policy.named_parameters()
        if p.grad is None or not p.grad.isfinite().all() or not p.grad.any()
    ]
    assert idle == []


def test_the_value_alone_is_the_value_of_the_whole_pass(
    policy: UnitSetPolicy, make_observation: MakeObservation
) -> None:
    observation = make_observation(8, 9, 4)
    torch.testing.assert_close(policy.value(observation), policy(observation).value)


@pytest.mark.parametrize("config", [{}, {"memory": True}, {"critic": "state"}])
def test_compiles_whole(
    make_policy: MakePolicy, make_observation: MakeObservation, config: dict[str, object]
) -> None:
    """``fullgraph``: a break in the graph is an error. The backend runs what was traced as it is."""
    policy, observation = make_policy(**config), make_observation()
    orders = policy.act(observation, deterministic=True).orders
    torch._dynamo.reset()
    evaluate = torch.compile(policy.evaluate_orders, fullgraph=True, backend="aot_eager")
    for compiled, plain in zip(
        evaluate(observation, orders), policy.evaluate_orders(observation, orders), strict=True
    ):
        torch.testing.assert_close(compiled, plain)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def act(observation: dict[str, Tensor]) -> Tensor:
        return policy.act(observation, deterministic=True).orders

    assert torch.equal(act(observation), orders)
