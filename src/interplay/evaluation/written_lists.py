"""Ranked lists as a recommender that reasons writes them: at every recommender turn of logs that names items.

Each list stands beside the candidates that the recommender was told, in the order in which it was told them: what its
reasoning adds to the retriever is the difference of the two.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from interplay.evaluation.asking import CONCURRENCY, Pair, in_order, is_fault, speak_once
from interplay.evaluation.scoring import About, rows
from interplay.formats.reasoning import keeps_form
from interplay.items.contexts import Case, cases_of
from interplay.metrics.bootstrap import estimate_ratio
from interplay.simulation.agents import Agent
from interplay.simulation.reasoning import Reasoner, shown_values
from interplay.simulation.slots import Knowledge
from interplay.types import Catalog, Failure, Role, ScoreRow, Turn, View, derive_seed, view_of

LIST, TOLD, NAMED = METHODS = ("list", "told", "named")
"""Its ranked list; the candidates in the order in which it was told them; the titles of its words."""


@dataclass(slots=True, frozen=True)
class WrittenList:
    """What came of one case."""

    turn: Turn | None
    """With its reasoning; None when it could not be read, or nothing was said."""
    failure: Failure | None = None


async def write_lists(
    pairs: Sequence[Pair],
    recommender: Agent,
    knowledge: Knowledge,
    *,
    seed: int,
    with_persona: bool,
    concurrency: int = CONCURRENCY,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[WrittenList]:
    """Let a recommender that reasons speak at every case.

    Args:
        pairs: scenarios with their logs.
        recommender: who speaks.
        knowledge: its own, so that the candidates of a log are looked up once and not once per case.
        seed: of the evaluation.
        with_persona: whether its View shows the persona.
        concurrency: turns asked for at once.
        on_progress: called with (finished, total).

    Returns:
        One per case, in the order of `items.contexts.cases_of`.
    """
    jobs: list[tuple[str, View]] = []
    for scenario, log in pairs:
        view = view_of(scenario, Role.RECOMMENDER, with_persona=with_persona).after(*log.turns)
        advice = knowledge.logged_advice([view])[0][0]
        turns = log.turns if knowledge.reasoner is None else knowledge.reasoner.fill(view.turns, view.role, advice)
        for case in cases_of(log, scenario.source_id):
            before = tuple(a for a in advice if a.turn < case.turn)
            jobs.append((f"{case.dialogue}.{case.turn}", replace(view, turns=turns[: case.turn], advice=before)))

    async def do(job: tuple[str, View]) -> WrittenList:
        key, view = job
        said = await speak_once(recommender, view, derive_seed(seed, "list", key), f"list.{key}")
        return WrittenList(None, said) if isinstance(said, Failure) else WrittenList(said)

    return await in_order(jobs, do, concurrency=concurrency, on_progress=on_progress)


def ids_by_method(written: WrittenList, catalog: Catalog) -> dict[str, list[str | None]]:
    """The item ids of a list by each of METHODS, first place first; None for titles that the catalog does not hold."""
    turn = written.turn
    if turn is None or turn.reasoning is None:
        return {method: [] for method in METHODS}

    def ids(titles: Sequence[str]) -> list[str | None]:
        items = [catalog.find(title) for title in titles]
        return [None if item is None else item.id for item in items]

    return {
        LIST: ids([listed.title for listed in turn.reasoning.ranking]),
        TOLD: ids(turn.reasoning.candidates),
        NAMED: ids(turn.titles),
    }


def fit_rows(
    cases: Sequence[Case], lists: Sequence[dict[str, list[str | None]]], reasoner: Reasoner, about: About
) -> list[ScoreRow]:
    """`ranking.wishes_met` of the first title by each of METHODS: wanted values that it has / wanted values.

    What is wanted is read off the user's turns before the case by rules (`simulation.reasoning.Wishes`), of the kinds that the
    recommender is shown; cases in which nothing of these was asked for are skipped. A list without a first title meets none.
    """
    sums: dict[str, dict[str, list[float]]] = {method: {} for method in METHODS}
    skipped = 0
    for case, own in zip(cases, lists, strict=True):
        wanted = {wish.facet.value for wish in reasoner.wishes(case.context) if wish.facet.kind in reasoner.kinds}
        if not wanted:
            skipped += 1
            continue
        for method, ids in own.items():
            item = reasoner.catalog.get(ids[0]) if ids else None
            met = wanted & set(shown_values(item, reasoner.kinds)) if item is not None else set()
            sums[method].setdefault(case.dialogue, []).append(len(met) / len(wanted))
    out: list[ScoreRow] = []
    for method, values in sums.items():
        totals, counts = [sum(v) for v in values.values()], [len(v) for v in values.values()]
        estimate = estimate_ratio(totals, counts, np.random.default_rng(about.seed), skipped)
        out += rows({"ranking.wishes_met": estimate}, about, subject=f"{about.subject} {method}")
    return out


def form_rows(cases: Sequence[Case], written: Sequence[WrittenList], list_length: int, about: About) -> list[ScoreRow]:
    """Shares of answers: those that can be read, and those whose list has exactly the titles asked for, all candidates.

    Answers that a fault ended are skipped and counted. Intervals resample dialogues.
    """
    sums: dict[str, dict[str, list[float]]] = {"ranking.readable": {}, "ranking.list_valid": {}}
    skipped = 0
    for case, one in zip(cases, written, strict=True):
        if one.failure is not None and is_fault(one.failure):
            skipped += 1
            continue
        reasoning = None if one.turn is None else one.turn.reasoning
        values = {
            "ranking.readable": float(one.turn is not None),
            "ranking.list_valid": float(reasoning is not None and keeps_form(reasoning, list_length)),
        }
        for metric, value in values.items():
            sums[metric].setdefault(case.dialogue, []).append(value)
    rng = np.random.default_rng(about.seed)
    return rows(
        {
            metric: estimate_ratio([sum(v) for v in own.values()], [len(v) for v in own.values()], rng, skipped)
            for metric, own in sums.items()
        },
        about,
        subject=f"{about.subject} {LIST}",
    )
