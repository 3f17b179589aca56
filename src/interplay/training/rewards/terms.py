"""The reward terms: what each is worth at each step of a conversation, and how it can be gamed.

Every function takes a Rollout and returns one value per step of the policy. None means that the term is not defined there;
it is not zero, adds nothing to a sum and is left out of a mean. Where a term weighs the whole conversation, its value stands
at the last step and the others are None. `TERMS` describes them all.
"""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from interplay.corpora.inspired import SOCIABLE
from interplay.metrics.matching import attribute_key, attribute_keys, is_any_target, is_target
from interplay.metrics.ranking import discounted_gain
from interplay.metrics.text import words
from interplay.titles import title_key
from interplay.training.rewards.rollouts import Rollout, Step, Values
from interplay.types import Action, Catalog, Ending, Item, Role, Target, Turn

_SOCIABLE = frozenset(name.replace("_", " ") for name in SOCIABLE)
LOOP_NGRAM = 3
"""Words of the n-grams that are counted for repetition within a turn."""


class GoalPart(StrEnum):
    """The five kinds of parts that a user's goal has (UGST, arXiv 2507.20152)."""

    PROFILE = "profile"
    POLICY = "policy"
    OBJECTIVE = "objective"
    REQUIREMENT = "requirement"
    PREFERENCE = "preference"


PHuman = Callable[[Sequence[str]], float | None]
"""From the turns of one side of a conversation to P(human) in [0, 1]; None when it can't tell."""
StrategyJudge = Callable[[tuple[Turn, ...]], Collection[str] | None]
"""From the turns up to and including the one that is judged to the strategies of that one; None when it can't tell."""
GoalJudge = Callable[[Rollout, Step], Mapping[GoalPart, bool | None]]
"""Whether a step of a user keeps to each part of the goal; None, or no entry, for a part that the step says nothing of."""


@dataclass(slots=True, frozen=True)
class Term:
    """What is known of one reward term."""

    name: str
    per: Literal["turn", "conversation"]
    """Whether it weighs single turns, or the conversation once."""
    low: float
    """Least value."""
    high: float
    """Greatest value."""
    roles: tuple[Role, ...]
    """Policies that it can reward."""
    equation: str
    source: str
    gaming: str
    """How a policy can have it without being any good."""


_BOTH = (Role.RECOMMENDER, Role.USER)
_RECOMMENDER = (Role.RECOMMENDER,)

TERMS: dict[str, Term] = {
    term.name: term
    for term in (
        Term(
            "format",
            "turn",
            0.0,
            1.0,
            _BOTH,
            "1 if the answer can be read and, for a policy that reasons, its reasoning can and its list has exactly N distinct "
            "titles, all candidates; else 0",
            "SMTPO (arXiv 2604.03671): a format reward; the rule is ours",
            "A correct form around nonsense has it all, and a longer talk has it more often.",
        ),
        Term(
            "recommend",
            "turn",
            0.0,
            1.0,
            _RECOMMENDER,
            "1 / log2(rank + 1), rank of the best-placed target in what the turn shows; 0 if none is in it",
            "SMTPO: a recommend reward; the equation, that of NDCG (Jarvelin and Kekalainen 2002), is ours",
            "Paid per turn: the target shown again every turn. Paid as a mean: one list only, once it is sure.",
        ),
        Term(
            "recommend_gain",
            "turn",
            -1.0,
            1.0,
            _RECOMMENDER,
            "recommend at this list less recommend at the list before it; at the first list, recommend",
            "ours; a potential-based shaping (Ng, Harada and Russell 1999) of the last list's reward",
            "The sum is the last list's reward, so what is shown before it is free: ten bad lists cost nothing.",
        ),
        Term(
            "preference",
            "turn",
            0.0,
            1.0,
            _RECOMMENDER,
            "F1 = 2 |named and had| / (|named| + |had|), of the values that the reasoning names and those that a target has",
            "SMTPO: a preference reward; the equation is ours",
            "Naming what most items have (drama, 2000s) scores without listening.",
        ),
        Term(
            "acceptance",
            "conversation",
            0.0,
            1.0,
            _RECOMMENDER,
            "1 if the user accepts something that was shown, else 0",
            "Bernard and Balog (SIGIR-AP 2025): success rate, of one conversation",
            "Begging: a simulator that gives in to 'please accept' pays for the word, not for the item.",
        ),
        Term(
            "success",
            "conversation",
            0.0,
            1.0,
            _RECOMMENDER,
            "1 if the user accepts a hidden target, else 0",
            "Interplay (arXiv 2603.18573), section 4: success rate, of one conversation",
            "Whatever leaks the target: a user that names it, or a position at which it is always accepted.",
        ),
        Term(
            "satisfaction",
            "conversation",
            0.0,
            1.0,
            _RECOMMENDER,
            "share of the user's target attributes that the best accepted item has; 0 without an accept",
            "ours, after goal satisfaction (docs/metrics.md): what was accepted is held against what was looked for",
            "What most items have (drama, 2010s) earns a part without listening.",
        ),
        Term(
            "turned_down",
            "turn",
            -1.0,
            0.0,
            _RECOMMENDER,
            "-1 where something is shown and the user's next turn does not accept, 0 where it does",
            "ours; as a mean it is SRRR - 1, the share of rounds with an offer that are accepted (docs/metrics.md) less 1",
            "Whoever offers nothing is never turned down: give it a reward for acceptance beside it.",
        ),
        Term(
            "turn_cost",
            "turn",
            -1.0,
            0.0,
            _BOTH,
            "-1 / ceil(max_turns / 2) at every turn, so -1 in a conversation of full length",
            "CRSIRL (arXiv 2310.20109): few turns as an objective; the constant is ours",
            "Ending at once is cheapest: alone, or too heavy, it teaches to be left or to guess.",
        ),
        Term(
            "catalog_validity",
            "turn",
            0.0,
            1.0,
            _RECOMMENDER,
            "titles shown that are in the catalog / titles shown",
            "Rank-GRPO (arXiv 2510.20150): in-catalog titles; as a share of its own it is ours",
            "One safe title, always the same, is perfectly valid.",
        ),
        Term(
            "repetition",
            "turn",
            -1.0,
            0.0,
            _BOTH,
            "-max(1 - distinct 3-grams / 3-grams, greatest word overlap 2 |a and b| / (|a| + |b|) with an earlier turn)",
            "seq-rep-n (Welleck et al. 2020) within a turn; overlap with earlier ones as the fingerprint's repetition_rate",
            "Paraphrase: the same thing in other words costs nothing; so does saying ever less.",
        ),
        Term(
            "sociability",
            "turn",
            0.0,
            1.0,
            _RECOMMENDER,
            "1 if the turn uses one of the eight sociable strategies, else 0",
            "INSPIRED (arXiv 2009.14306): sociable strategies go with accepted recommendations",
            "A stock phrase in every turn ('I loved it too!'), with made-up experiences among them.",
        ),
        Term(
            "realism",
            "conversation",
            0.0,
            1.0,
            _BOTH,
            "P(human) of the policy's turns, by a discriminator that is passed in",
            "DIAL (arXiv 2512.20773) and Turing-RL (arXiv 2606.19336): a discriminator or judge as reward",
            "The discriminator's blind spots: fit it anew as the policy moves, and report with another one.",
        ),
        Term(
            "goal_alignment",
            "turn",
            0.0,
            2.5,
            (Role.USER,),
            "5 x 0.5 x mean over the judged of the five parts of 1 (kept) or 0",
            "UGST (arXiv 2507.20152): sum over five parts of 0.5 x indicator",
            "Saying nothing that a part could be judged by; what is left unjudged is neither paid nor punished.",
        ),
    )
}
"""Every term, by the name that it has in `config.RewardWeights`."""


def format_reward(rollout: Rollout, list_length: int = 10) -> Values:
    """Whether each answer keeps the form: see `TERMS`. Defined at every step.

    Args:
        rollout: the conversation.
        list_length: titles that the list of a policy that reasons must have.
    """
    return tuple(float(_keeps_form(rollout, step, list_length)) for step in rollout.steps)


def _keeps_form(rollout: Rollout, step: Step, list_length: int) -> bool:
    if step.turn is None:
        return False
    if step.answer is None:
        return True
    if step.answer.preferences is None or step.answer.ranking is None:
        return False
    distinct = {_identity(rollout, title) for title in step.answer.ranking}
    if not len(step.answer.ranking) == len(distinct) == list_length:
        return False
    if step.answer.candidates is None:
        return True
    return distinct <= {_identity(rollout, title) for title in step.answer.candidates}


def _identity(rollout: Rollout, title: str) -> str:
    item = rollout.find(title)
    return f"title {title_key(title)}" if item is None else item.id


def rank_of(shown: Iterable[tuple[str, str | None]], targets: Sequence[Target]) -> int | None:
    """The place, from 1, of the first title that means a target; None when none does.

    >>> rank_of([("Up (2009)", None), ("heat", None)], [Target(item_id="m1", title="Heat (1995)")])
    2
    """
    return next((n for n, (title, item_id) in enumerate(shown, 1) if is_any_target(title, item_id, targets)), None)


def rank_reward(rank: int | None) -> float:
    """1 / log2(rank + 1), in [0, 1]; 0 when there is no rank.

    >>> rank_reward(1), rank_reward(3), rank_reward(None)
    (1.0, 0.5, 0.0)
    """
    return 0.0 if rank is None else discounted_gain(rank, rank)


def recommend_reward(rollout: Rollout) -> Values:
    """Where the target stands in what each step shows: see `TERMS`.

    0 where an answer, or the list of a policy that reasons, could not be read. None where a readable turn of a policy
    without lists shows nothing (it may have asked), and everywhere when the scenario has no target.
    """
    targets = rollout.scenario.targets
    if not targets:
        return (None,) * len(rollout.steps)
    out: list[float | None] = []
    for step in rollout.steps:
        shown = rollout.shown(step)
        is_owed = step.answer is not None or step.turn is None
        out.append((0.0 if is_owed else None) if shown is None else rank_reward(rank_of(shown, targets)))
    return tuple(out)


def recommend_gain(rollout: Rollout) -> Values:
    """How much better each list is than the one before it: see `TERMS`. Defined where `recommend_reward` is."""
    out: list[float | None] = []
    latest = 0.0
    for value in recommend_reward(rollout):
        out.append(None if value is None else value - latest)
        latest = latest if value is None else value
    return tuple(out)


def f1(named: Collection[str], wanted: Collection[str]) -> float | None:
    """2 |named and wanted| / (|named| + |wanted|) over distinct values, in [0, 1]; None when nothing is wanted.

    Spelling is compared as that of titles.

    >>> f1(["Crime", "1990s", "funny"], ["crime", "1990s", "tense"])
    0.6666666666666666
    >>> f1([], ["crime"]), f1(["crime"], [])
    (0.0, None)
    """
    had, wished = {title_key(v) for v in named}, {title_key(v) for v in wanted}
    return 2 * len(had & wished) / (len(had) + len(wished)) if wished else None


def attribute_values(item: Item, kinds: Collection[str] = ()) -> tuple[str, ...]:
    """An item's attribute values, and its decade ("1990s") where the year is known.

    Args:
        item: the item.
        kinds: those that count ("decade" among them); all when empty.
    """
    values = [v for kind, own in item.attributes.items() if not kinds or kind in kinds for v in own]
    if item.year is not None and (not kinds or "decade" in kinds):
        values.append(f"{item.year // 10 * 10}s")
    return tuple(dict.fromkeys(values))


def preference_reward(rollout: Rollout, kinds: Collection[str] = ()) -> Values:
    """How well the reasoning of each step names what a target has: see `TERMS`; of several targets, the best.

    0 where the reasoning could not be read. None for a policy that does not reason, and where the scenario has no target
    with attributes in the catalog.

    Args:
        rollout: the conversation.
        kinds: kinds of attributes that count; all when empty.
    """
    items = [rollout.find(t.title, t.item_id) for t in rollout.scenario.targets]
    wanted = [attribute_values(item, kinds) for item in items if item is not None]
    wanted = [values for values in wanted if values]
    if rollout.answers is None or not wanted:
        return (None,) * len(rollout.steps)
    return tuple(max(f1(answer.preferences or (), values) or 0.0 for values in wanted) for answer in rollout.answers)


def acceptance_reward(rollout: Rollout) -> Values:
    """Whether the user accepted something: see `TERMS`. An accept with nothing on the table is 0.

    None when nobody can tell: the user's own answer could not be read, or a log does not say how it ended.
    """
    return _at_end(rollout, _accepts(rollout, bool))


def success_reward(rollout: Rollout) -> Values:
    """Whether the user accepted a target: see `TERMS`. None as `acceptance_reward`, and without a target."""
    targets = rollout.scenario.targets
    if not targets:
        return _at_end(rollout, None)
    return _at_end(rollout, _accepts(rollout, lambda accepted: any(is_any_target(t, i, targets) for t, i in accepted)))


def satisfaction_reward(rollout: Rollout) -> Values:
    """How much of what the user looks for the accepted item has: see `TERMS`; an item that the catalog lacks has nothing of it.

    None as `acceptance_reward`, and where the user looks for nothing in particular.
    """
    wanted = {attribute_key(attribute) for attribute in rollout.scenario.persona.target_attributes}
    if not wanted:
        return _at_end(rollout, None)

    def had(title: str, item_id: str | None) -> float:
        item = rollout.find(title, item_id)
        return 0.0 if item is None else len(wanted & attribute_keys(item)) / len(wanted)

    return _at_end(rollout, _accepts(rollout, lambda accepted: max((had(t, i) for t, i in accepted), default=0.0)))


def _accepts(rollout: Rollout, test: Callable[[tuple[tuple[str, str | None], ...]], float]) -> float | None:
    if rollout.accepted is not None:
        return float(test(rollout.accepted))
    failure, ending = rollout.dialogue.failure, rollout.dialogue.ending
    of_other = ending is Ending.FORMAT_FAILURE and (failure is None or failure.role is not rollout.role)
    return None if ending is None or of_other or rollout.is_faulty else 0.0


def _at_end(rollout: Rollout, value: float | None) -> Values:
    return (*(None,) * (len(rollout.steps) - 1), value) if rollout.steps else ()


def turned_down(rollout: Rollout) -> Values:
    """Minus one for each offer that the user does not accept: see `TERMS`. None where nothing is shown or nobody answers."""
    turns = rollout.dialogue.turns
    out: list[float | None] = []
    for step in rollout.steps:
        answer = turns[step.place + 1] if step.place + 1 < len(turns) else None
        is_offer = rollout.shown(step) is not None
        out.append((0.0 if answer.action is Action.ACCEPT else -1.0) if is_offer and answer is not None else None)
    return tuple(out)


def turn_cost(rollout: Rollout) -> Values:
    """The same price for every step: see `TERMS`."""
    return (-1 / max(1, math.ceil(rollout.max_turns / 2)),) * len(rollout.steps)


def catalog_validity(rollout: Rollout) -> Values:
    """Share of the titles shown that the catalog holds: see `TERMS`. None where a step shows no title."""
    out: list[float | None] = []
    for step in rollout.steps:
        shown = rollout.shown(step)
        out.append(None if shown is None else sum(rollout.find(t, i) is not None for t, i in shown) / len(shown))
    return tuple(out)


def loops(text: str) -> float | None:
    """1 - distinct 3-grams / 3-grams, in [0, 1); None for fewer than three words (Welleck et al. 2020, seq-rep-3).

    >>> loops("try it try it try it"), loops("try something else"), loops("hi")  # try it try | it try it, 2 distinct of 4
    (0.5, 0.0, None)
    """
    found = words(text)
    grams = [tuple(found[i : i + LOOP_NGRAM]) for i in range(len(found) - LOOP_NGRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else None


def overlap(one: str, other: str) -> float | None:
    """2 |a and b| / (|a| + |b|) over the words of two turns with their numbers, in [0, 1]; None when both have none.

    >>> overlap("try Heat", "try Up")
    0.5
    """
    a, b = Counter(words(one)), Counter(words(other))
    total = a.total() + b.total()
    return 2 * (a & b).total() / total if total else None


def repetition(rollout: Rollout) -> Values:
    """Minus how much each step repeats itself or an earlier step of the policy: see `TERMS`.

    None where there is nothing to compare: no earlier turn and fewer than three words, or an answer that was not read.
    """
    out: list[float | None] = []
    earlier: list[str] = []
    for step in rollout.steps:
        if step.turn is None:
            out.append(None)
            continue
        found = [loops(step.turn.text), *(overlap(step.turn.text, text) for text in earlier)]
        defined = [value for value in found if value is not None]
        out.append(-max(defined) if defined else None)
        earlier.append(step.turn.text)
    return tuple(out)


def labelled_strategies(turns: tuple[Turn, ...]) -> Collection[str] | None:
    """The strategies that a corpus labels the last turn with; None where it has no label: the StrategyJudge of logs."""
    return turns[-1].strategies or None


def sociability(rollout: Rollout, judge: StrategyJudge = labelled_strategies) -> Values:
    """Whether each step uses a sociable strategy: see `TERMS`. None where the judge can't tell, or nothing was read.

    Args:
        rollout: the conversation.
        judge: tells the strategies of a turn. Names are compared without case, "_" and "-" as spaces.
    """
    out: list[float | None] = []
    for step in rollout.steps:
        found = None if step.turn is None else judge((*rollout.before(step), step.turn))
        used = None if found is None else {name.replace("_", " ").replace("-", " ").casefold() for name in found}
        out.append(None if used is None else float(bool(used & _SOCIABLE)))
    return tuple(out)


def realism(rollout: Rollout, p_human: PHuman) -> Values:
    """P(human) of the policy's turns: see `TERMS`. None when it said nothing that could be read.

    Args:
        rollout: the conversation.
        p_human: the discriminator.
    """
    said = [step.turn.text for step in rollout.steps if step.turn is not None]
    return _at_end(rollout, p_human(said) if said else None)


def goal_alignment(rollout: Rollout, judge: GoalJudge) -> Values:
    """How many parts of its goal a user's step keeps to: see `TERMS`. None where no part is judged, or nothing was read.

    With all five parts judged it is UGST's sum; with fewer, their mean stands for the rest.

    Args:
        rollout: the conversation.
        judge: judges each part.
    """
    out: list[float | None] = []
    for step in rollout.steps:
        kept = [] if step.turn is None else [v for v in judge(rollout, step).values() if v is not None]
        out.append(0.5 * len(GoalPart) * sum(kept) / len(kept) if kept else None)
    return tuple(out)


def list_relevance(
    ranking: Sequence[str] | None, targets: Sequence[Target], catalog: Catalog, seen: Iterable[str] = (), num_ranks: int = 10
) -> tuple[float, ...]:
    """What each place of a list is worth to Rank-GRPO: 1 where it holds a target, else 0 (arXiv 2510.20150, variant exp_inf).

    A place counts when its title is in the catalog, was not named in the conversation before, and means a target that no
    earlier place has taken. A list that could not be read is all zeros, as in the paper; so is what a short list lacks.

    Args:
        ranking: titles as written, best first; None when they could not be read.
        targets: of the scenario.
        catalog: of the domain.
        seen: titles named before.
        num_ranks: places; later ones are left out.

    >>> from interplay.types import DOMAINS
    >>> films = Catalog([Item(id="m1", title="Heat"), Item(id="m2", title="Up")], DOMAINS["movie"])
    >>> list_relevance(["Up", "Heat", "heat"], [Target(item_id="m1", title="Heat")], films, num_ranks=4)
    (0.0, 1.0, 0.0, 0.0)
    """
    taken: set[str] = set()
    named = {title_key(title) for title in seen}
    out = [0.0] * num_ranks
    for place, title in enumerate((ranking or ())[:num_ranks]):
        item = catalog.find(title)
        if item is None or title_key(title) in named:
            continue
        hit = next((t for t in targets if t.item_id not in taken and is_target(title, item.id, t)), None)
        if hit is not None:
            taken.add(hit.item_id)
            out[place] = 1.0
    return tuple(out)


def gain_from_rank(relevance: Sequence[float]) -> tuple[float, ...]:
    """DCG@k:N, what a list gains from place k on: sum over j >= k of relevance_j / log2(j + 1) (arXiv 2510.20150).

    The other variant of Rank-GRPO's reward of a place; the paper found `list_relevance` itself simpler and better.

    >>> gain_from_rank([1.0, 0.0, 1.0])
    (1.5, 0.5, 0.5)
    """
    gains = [value / math.log2(place + 1) for place, value in enumerate(relevance, 1)]
    return tuple(sum(gains[place:]) for place in range(len(gains)))
