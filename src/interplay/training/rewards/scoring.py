"""The weighted sum of reward terms, with every term logged."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from interplay.config import RewardSpec
from interplay.errors import ConfigError
from interplay.training.rewards.judges import goal_by_rules
from interplay.training.rewards.rollouts import Rollout, Values
from interplay.training.rewards.terms import (
    TERMS,
    GoalJudge,
    PHuman,
    StrategyJudge,
    acceptance_reward,
    catalog_validity,
    format_reward,
    goal_alignment,
    labelled_strategies,
    preference_reward,
    realism,
    recommend_gain,
    recommend_reward,
    repetition,
    satisfaction_reward,
    sociability,
    success_reward,
    turn_cost,
    turned_down,
)
from interplay.types import Role


@dataclass(slots=True, frozen=True)
class Judges:
    """What some terms ask; see the types in `rewards.terms`."""

    p_human: PHuman | None = None
    """Needed for `realism`."""
    strategies: StrategyJudge = labelled_strategies
    """For `sociability`; by default the labels of a corpus, which simulated turns have none of."""
    goal: GoalJudge = goal_by_rules
    """For `goal_alignment`."""


@dataclass(slots=True, frozen=True)
class Scored:
    """The rewards of one conversation."""

    values: Mapping[str, Values] = field(default_factory=dict)
    """Of each term, unweighted, one per step; empty for a conversation that a fault ended."""
    paid: Mapping[str, float | None] = field(default_factory=dict)
    """What each term adds to the total, weighted; None where it is defined at no step."""
    steps: Values = ()
    """The weighted sum that is paid at each step; None where no term pays."""

    @property
    def total(self) -> float | None:
        """The reward of the conversation: the sum over steps; None when no term is defined."""
        paid = [value for value in self.steps if value is not None]
        return sum(paid) if paid else None


class Rewards:
    """The weighted sum of a RewardSpec.

        R = sum over terms k of w_k sum over steps t of r_k(t)

    With `pay = "end"` a term of single turns adds, once and at the last step, its mean over the steps where it is defined; a
    cost per turn is paid at each turn all the same, being nothing else than one. Payments never depend on a later step but at
    the last one, so a return from step t on holds all that step t can change. A term that is not defined at a step pays
    nothing there, and is counted in `summarise`.

    Args:
        spec: weights, and how they are paid.
        role: the policy's.
        judges: what some terms ask.

    Raises:
        ConfigError: every weight is 0, a term can't reward this role, or a term's judge is missing.
    """

    def __init__(self, spec: RewardSpec, role: Role = Role.RECOMMENDER, judges: Judges | None = None) -> None:
        judges = judges or Judges()
        self.spec = spec
        self.role = role
        self.weights: dict[str, float] = {name: weight for name, weight in spec.weights.model_dump().items() if weight > 0}
        if not self.weights:
            raise ConfigError(f"every reward weight is 0; give at least one of {', '.join(TERMS)} a positive weight")
        strange = [name for name in self.weights if role not in TERMS[name].roles]
        if strange:
            fitting = ", ".join(name for name, term in TERMS.items() if role in term.roles)
            raise ConfigError(f"the reward {strange[0]} can't reward a {role}; set its weight to 0; those that can: {fitting}")
        p_human = judges.p_human
        if p_human is None and "realism" in self.weights:
            raise ConfigError("the reward realism needs a discriminator, P(human) of turns, and has none; set its weight to 0")
        kinds = frozenset(spec.attribute_kinds)
        functions: dict[str, Callable[[Rollout], Values]] = {
            "format": lambda rollout: format_reward(rollout, spec.list_length),
            "recommend": recommend_reward,
            "recommend_gain": recommend_gain,
            "preference": lambda rollout: preference_reward(rollout, kinds),
            "acceptance": acceptance_reward,
            "success": success_reward,
            "satisfaction": satisfaction_reward,
            "turned_down": turned_down,
            "turn_cost": turn_cost,
            "catalog_validity": catalog_validity,
            "repetition": repetition,
            "sociability": lambda rollout: sociability(rollout, judges.strategies),
            "goal_alignment": lambda rollout: goal_alignment(rollout, judges.goal),
        }
        if p_human is not None:
            functions["realism"] = lambda rollout: realism(rollout, p_human)
        self._functions = {name: functions[name] for name in self.weights}

    def __call__(self, rollout: Rollout) -> Scored:
        """The rewards of one conversation; all None for one that a fault ended.

        Raises:
            ValueError: the rollout is of the other role.
        """
        if rollout.role is not self.role:
            raise ValueError(f"these rewards are for a {self.role}, the rollout is a {rollout.role}'s")
        if rollout.is_faulty:
            return Scored(steps=(None,) * len(rollout.steps))
        values = {name: function(rollout) for name, function in self._functions.items()}
        payments = {name: self._payments(name, found) for name, found in values.items()}
        steps = tuple(_sum(step) for step in zip(*payments.values(), strict=True))
        return Scored(values, {name: _sum(payment) for name, payment in payments.items()}, steps)

    def _payments(self, name: str, values: Values) -> Values:
        weight = self.weights[name]
        if self.spec.pay == "end" and TERMS[name].per == "turn" and name != "turn_cost":
            values = (*(None,) * (len(values) - 1), _mean(values)) if values else ()
        return tuple(None if value is None else weight * value for value in values)


def _sum(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return sum(defined) if defined else None


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


@dataclass(slots=True, frozen=True)
class TermSummary:
    """One term over many conversations: what a training log keeps of it."""

    name: str
    mean: float | None
    """Mean of the conversations' means over steps, unweighted."""
    paid: float | None
    """Mean of what it adds to a conversation's total, weighted."""
    share: float | None
    """Sum of |what it pays| / sum of |what all terms pay|, in [0, 1]: a share of 1 of `format` is a reward for form alone."""
    n: int
    """Conversations in which it is defined: the denominator of the means."""
    num_undefined: int
    """Conversations in which it is not."""


@dataclass(slots=True, frozen=True)
class RewardSummary:
    """The rewards of many conversations."""

    terms: tuple[TermSummary, ...]
    mean: float | None
    """Of the totals."""
    n: int
    """Conversations that have a total."""
    num_missing: int
    """Conversations without: a fault ended them, or no term is defined."""


def summarise(scored: Sequence[Scored]) -> RewardSummary:
    """Every term over many conversations.

    Args:
        scored: of one `Rewards`.
    """
    names = list(dict.fromkeys(name for one in scored for name in one.values))
    paid = {name: [abs(v) for one in scored if (v := one.paid.get(name)) is not None] for name in names}
    everything = sum(sum(values) for values in paid.values())
    terms = []
    for name in names:
        means = [mean for one in scored if name in one.values and (mean := _mean(one.values[name])) is not None]
        terms.append(
            TermSummary(
                name=name,
                mean=_mean(means),
                paid=_mean([one.paid.get(name) for one in scored]),
                share=sum(paid[name]) / everything if everything else None,
                n=len(means),
                num_undefined=len(scored) - len(means),
            )
        )
    totals = [one.total for one in scored]
    n = sum(total is not None for total in totals)
    return RewardSummary(tuple(terms), _mean(totals), n, len(scored) - n)
