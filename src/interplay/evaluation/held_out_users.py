"""A recommender while it is optimised: measured with the simulators it is trained against, with others, and on logs of people.

The same scenarios, seeds and definitions every time (those of `simulate` and `evaluate recommendation`), so that two rounds
differ in the recommender alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from interplay.evaluation.asking import Pair
from interplay.evaluation.exposure import gold_rank_rows
from interplay.evaluation.recommendation import recommend_at_gold_turn
from interplay.evaluation.scoring import About, data_digest, recommendation_rows, simulation_rows
from interplay.evaluation.simulation import summarise
from interplay.simulation.agents import Agent
from interplay.simulation.batch import Plan, simulate
from interplay.types import Catalog, Check, CheckKind, Dialogue, Scenario, ScoreRow

SIMULATED = (
    "simulation.success_rate",
    "simulation.accept_rate",
    "simulation.goal_satisfaction",
    "simulation.turns_per_dialogue",
    "simulation.off_catalog_rate",
    "simulation.format_failure_rate",
)
LOGGED = (
    "recommendation.recall@1",
    "recommendation.recall@10",
    "recommendation.list_recall@1",
    "recommendation.list_recall@10",
    "recommendation.no_item_rate",
)
"""Those of lists are of recommenders that reason."""


@dataclass(slots=True, frozen=True)
class Bench:
    """What a recommender is measured on, again and again."""

    training: tuple[str, Agent]
    """The simulators that it is trained against, as one, and what they are called."""
    held_out: Sequence[tuple[str, Agent]]
    scenarios: Sequence[Scenario]
    human: Sequence[Pair]
    """Logs of people; none where there are none."""
    human_name: str
    """What they are called."""
    catalog: Catalog
    plan: Plan


async def measure(step: int, recommender: Agent, bench: Bench, *, with_persona: bool) -> tuple[list[Check], list[Dialogue]]:
    """Measure a recommender.

    Args:
        step: the round, for the records.
        recommender: who is measured.
        bench: on what.
        with_persona: whether its View shows the persona.

    Returns:
        What was measured, and the conversations with the first held-out simulator in the order of the scenarios.
    """
    checks: list[Check] = []
    shown: list[Dialogue] = []
    split = bench.scenarios[0].split.value
    digest = data_digest(bench.scenarios)
    plan = replace(bench.plan, with_persona=with_persona)
    order = {scenario.key: place for place, scenario in enumerate(bench.scenarios)}
    for number, (name, user) in enumerate((bench.training, *bench.held_out)):
        dialogues: list[Dialogue] = []
        await simulate(bench.scenarios, user, recommender, plan, on_dialogue=dialogues.append)
        dialogues.sort(key=lambda dialogue: (order[dialogue.scenario_key], dialogue.sample))
        about = About(recommender.name, split, bench.plan.seed, digest, simulator=name)
        found = simulation_rows(summarise(dialogues, bench.scenarios, bench.catalog), about)
        checks += _checks(step, name, CheckKind.HELD_OUT if number else CheckKind.TRAINING, found, SIMULATED)
        if number == 1:
            shown = dialogues
    if bench.human:
        scenarios = [scenario for scenario, _ in bench.human]
        about = About(recommender.name, split, bench.plan.seed, data_digest(scenarios))
        gold = await recommend_at_gold_turn(
            bench.human,
            recommender,
            seed=bench.plan.seed,
            with_persona=with_persona,
            concurrency=bench.plan.concurrency,
        )
        found = recommendation_rows(gold, about, catalog=bench.catalog)
        found += gold_rank_rows(bench.human, gold, about, catalog=bench.catalog, filtered=False)
        checks += _checks(step, bench.human_name, CheckKind.HUMAN, found, LOGGED)
    return checks, shown


def _checks(step: int, simulator: str, kind: CheckKind, rows: Sequence[ScoreRow], wanted: Sequence[str]) -> list[Check]:
    by_name = {row.metric: row for row in rows}
    return [
        Check(
            step=step,
            simulator=simulator,
            kind=kind,
            metric=name,
            value=row.value,
            low=row.low,
            high=row.high,
            n=row.n,
        )
        for name in wanted
        if (row := by_name.get(name)) is not None
    ]
