"""A conversation turn by turn: where the target stands, what has been covered by then, and what the rounds came to.

What a turn shows is the ranked list that a recommender which reasons has written before it; without one, the titles in its
words, each once. Turns are those of the recommender, counted from 1, whether they show anything or not.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from interplay.evaluation.scoring import About, rows
from interplay.evaluation.simulation import FAULTS
from interplay.evaluation.values import values_by_scenario
from interplay.metrics.bootstrap import Estimate, estimate_ratio
from interplay.metrics.matching import is_any_target, is_target
from interplay.titles import title_key
from interplay.types import Action, Dialogue, Role, Scenario, ScoreRow, Target, Turn

NUM_TURNS = 5
"""Turns of the recommender that are told apart, as many as iEvaLM (arXiv 2305.13112) lets it have."""
CUT_OFFS = (1, 10)
COVERED_FROM = 50
"""Head of each list that counts for preference coverage (PEPPER, arXiv 2411.16160)."""
ALL = "all conversations"


@dataclass(slots=True, frozen=True)
class Course:
    """How one conversation went. One entry per turn of the recommender where not said otherwise."""

    scenario_key: str
    num_targets: int
    """0 where the scenario has none, or is not known: nothing can be said of its lists."""
    shows: tuple[bool, ...]
    """Whether the turn shows anything."""
    ranks: tuple[int | None, ...]
    """Place, from 1, of the first target in what the turn shows; None without one."""
    covered: tuple[frozenset[int], ...]
    """Targets, by their index, that have been among the first 50 of any list up to this turn."""
    num_rounds: int
    """Rounds of recommendation: a turn that shows something opens one, which lasts until the next."""
    num_accepted_rounds: int
    """Rounds in which the user accepts."""
    num_accepts: int
    """Turns of the user that accept something."""
    num_turns: int
    """Turns of both sides."""

    def rank_at(self, turn: int) -> int | None:
        """Place of the first target in what a turn shows, from turn 1."""
        return self.ranks[turn - 1]

    def latest_rank(self, turn: int) -> int | None:
        """The same of the latest turn up to this one that shows anything; a conversation that is over keeps its last."""
        shown = [place for place, shows in enumerate(self.shows[:turn]) if shows]
        return self.ranks[shown[-1]] if shown else None

    def coverage(self, turn: int) -> float:
        """PC_t = |targets among the first 50 of any list up to turn t| / |targets|; 0 before the first turn."""
        reached = min(turn, len(self.covered))
        return len(self.covered[reached - 1]) / self.num_targets if reached else 0.0


def shown_by(turn: Turn) -> tuple[tuple[str, str | None], ...]:
    """Titles and item ids that a recommender's turn shows, best first; empty when it shows nothing."""
    if turn.reasoning is not None and turn.reasoning.ranking:
        return tuple((place.title, place.item_id) for place in turn.reasoning.ranking)
    named: dict[str, tuple[str, str | None]] = {}
    for title, mention in zip(turn.titles, turn.items, strict=True):
        named.setdefault(mention.item_id or f"title {title_key(title)}", (title, mention.item_id))
    return tuple(named.values())


def course_of(dialogue: Dialogue, targets: Sequence[Target]) -> Course:
    """Follow one conversation.

    Args:
        dialogue: the conversation.
        targets: of its scenario; empty where there is none.
    """
    shows: list[bool] = []
    ranks: list[int | None] = []
    covered: list[frozenset[int]] = []
    found: frozenset[int] = frozenset()
    rounds: list[bool] = []
    for turn in dialogue.turns:
        if turn.role is Role.USER:
            if rounds and turn.action is Action.ACCEPT:
                rounds[-1] = True
            continue
        shown = shown_by(turn)
        if shown:
            rounds.append(False)
        shows.append(bool(shown))
        ranks.append(next((n for n, (title, item) in enumerate(shown, 1) if is_any_target(title, item, targets)), None))
        head = shown[:COVERED_FROM]
        found |= {n for n, target in enumerate(targets) if any(is_target(title, item, target) for title, item in head)}
        covered.append(found)
    return Course(
        scenario_key=dialogue.scenario_key,
        num_targets=len(targets),
        shows=tuple(shows),
        ranks=tuple(ranks),
        covered=tuple(covered),
        num_rounds=len(rounds),
        num_accepted_rounds=sum(rounds),
        num_accepts=sum(turn.action is Action.ACCEPT for turn in dialogue.turns),
        num_turns=len(dialogue.turns),
    )


def courses_of(dialogues: Iterable[Dialogue], scenarios: Iterable[Scenario]) -> tuple[list[Course], int]:
    """Follow the conversations of a Run, in the order of their keys.

    Args:
        dialogues: of one Run.
        scenarios: those they started from; a conversation whose scenario is missing has no target.

    Returns:
        The courses, and how many conversations a fault ended, which have none.
    """
    targets = {scenario.key: scenario.targets for scenario in scenarios}
    found: list[tuple[tuple[str, int], Course]] = []
    num_skipped = 0
    for dialogue in dialogues:
        if dialogue.ending in FAULTS:
            num_skipped += 1
            continue
        key = (dialogue.scenario_key, dialogue.sample)
        found.append((key, course_of(dialogue, targets.get(dialogue.scenario_key, ()))))
    return [course for _, course in sorted(found, key=lambda entry: entry[0])], num_skipped


def multiturn_rows(courses: Sequence[Course], num_skipped: int, about: About, *, num_turns: int = NUM_TURNS) -> list[ScoreRow]:
    """Recall and preference coverage by turn, SRRR and RDL: see docs/metrics.md.

    The condition "turn t" is over the conversations with at least t turns of the recommender; "turn t, all conversations"
    over all, where one that is over keeps the result of its last list. Clusters of the intervals are scenarios.

    Args:
        courses: of the conversations.
        num_skipped: conversations that a fault ended.
        about: what the rows share.
        num_turns: turns that are told apart.
    """
    rng = np.random.default_rng(about.seed)

    def over(some: Sequence[Course], measure: Callable[[Course], float], skipped: int) -> Estimate:
        values = values_by_scenario([c.scenario_key for c in some], [measure(c) for c in some])
        return estimate_ratio([v.total for v in values.values()], [v.units for v in values.values()], rng, skipped)

    with_target = [c for c in courses if c.num_targets]
    untold = num_skipped + len(courses) - len(with_target)
    out: list[ScoreRow] = []
    for turn in range(1, num_turns + 1):
        reached = [c for c in with_target if len(c.shows) >= turn]
        for some, condition, rank in (
            (reached, f"turn {turn}", Course.rank_at),
            (with_target, f"turn {turn}, {ALL}", Course.latest_rank),
        ):
            found = {f"multiturn.recall@{k}": over(some, _hit(turn, k, rank), untold) for k in CUT_OFFS}
            found["multiturn.coverage"] = over(some, _coverage(turn), untold)
            found["multiturn.coverage_gain"] = over(some, _gain(turn), untold)
            if some is reached:
                found["multiturn.listed_rate"] = over(some, _shows(turn), untold)
            out += rows(found, replace(about, condition=condition))
    found = {
        "multiturn.srrr": over(courses, lambda c: c.num_accepted_rounds / c.num_rounds if c.num_rounds else 0.0, num_skipped),
        "multiturn.rdl": over(courses, lambda c: c.num_accepts / c.num_turns if c.num_turns else 0.0, num_skipped),
    }
    return out + rows(found, about)


def _hit(turn: int, k: int, rank: Callable[[Course, int], int | None]) -> Callable[[Course], float]:
    return lambda course: float((place := rank(course, turn)) is not None and place <= k)


def _coverage(turn: int) -> Callable[[Course], float]:
    return lambda course: course.coverage(turn)


def _gain(turn: int) -> Callable[[Course], float]:
    return lambda course: course.coverage(turn) - course.coverage(turn - 1)


def _shows(turn: int) -> Callable[[Course], float]:
    return lambda course: float(course.shows[turn - 1])


def by_turn(scores: Iterable[ScoreRow], *, all_conversations: bool = False) -> dict[str, list[ScoreRow]]:
    """The rows of each metric, turn 1 first, of one subject.

    Args:
        scores: of `multiturn_rows`.
        all_conversations: those over all conversations, in place of those over the ones that got that far.
    """
    suffix = f", {ALL}" if all_conversations else ""
    out: dict[str, list[ScoreRow]] = {}
    for row in scores:
        head, _, rest = row.condition.partition(",")
        if row.metric.startswith("multiturn.") and head.startswith("turn ") and (f",{rest}" if rest else "") == suffix:
            out.setdefault(row.metric, []).append(row)
    return {metric: sorted(found, key=lambda r: int(r.condition.split(",")[0].split()[1])) for metric, found in out.items()}
