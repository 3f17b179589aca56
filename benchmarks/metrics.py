"""Every metric that loads no model, on 100,000 made-up dialogues: `python benchmarks/metrics.py [--out FILE]`.

Prints processor seconds and peak memory per group of metrics, each in a process of its own, and writes them as JSON. Reading
the dialogues is told apart: it is counted once, as what takes longest in any group, since a program reads them once. Aim: all
groups and one reading in 120 s, and none above 2 GB. The models behind perplexity and BERTScore are not run: their numbers are
given. Words are drawn from a Zipf-like vocabulary, so texts repeat themselves as texts do.
"""

import argparse
import gc
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from interplay import __version__
from interplay.cli import COLLECT_AFTER
from interplay.evaluation.exposure import exposure_rows, shown_in_dialogues
from interplay.evaluation.leak_scores import leak_rows, simulation_part_rows
from interplay.evaluation.leakage import LeakChecker, LeakReport
from interplay.evaluation.lists import TitleList, title_list_rows
from interplay.evaluation.match import MatchCase, match_rows, simulated_cases
from interplay.evaluation.ranking import Placed, ranking_rows
from interplay.evaluation.recommendation import GoldTurn
from interplay.evaluation.replay import ReplayOutcome
from interplay.evaluation.scoring import About, recommendation_rows, replay_rows, simulation_rows
from interplay.evaluation.simulation import summarise
from interplay.evaluation.turn_scores import turn_rows
from interplay.evaluation.turns import TurnPrediction
from interplay.items.vectors import ItemVectors
from interplay.metrics.replay import Outcome
from interplay.store import RecordT, read_records, write_records
from interplay.types import (
    DOMAINS,
    Action,
    Catalog,
    Dialogue,
    Ending,
    Item,
    Mention,
    Persona,
    Role,
    Scenario,
    ScoreRow,
    Split,
    Target,
    Turn,
)

NUM_ITEMS = 5000
NUM_WORDS = 20_000
GENRES = ("drama", "comedy", "horror", "crime", "war", "music", "family", "western")
AIM_SECONDS, AIM_BYTES = 120, 2 * 10**9
ABOUT = About("made", "test", 0, "d", simulator="made")


def catalog() -> Catalog:
    """Items with made-up titles, years and two genres each."""
    items = [
        Item(
            id=f"i{n}",
            title=f"Title {n:05d} of Many",
            year=1950 + n % 70,
            attributes={"genre": (GENRES[n % 8], GENRES[(n // 8) % 8]), "decade": (f"{(1950 + n % 70) // 10 * 10}s",)},
        )
        for n in range(NUM_ITEMS)
    ]
    return Catalog(items, DOMAINS["movie"])


def make(num: int, scenarios_path: Path, dialogues_path: Path) -> None:
    """Write scenarios and dialogues of 6 to 12 turns, one at a time."""
    rng = np.random.default_rng(0)
    items = list(catalog())
    vocabulary = np.array([f"w{n}" for n in range(NUM_WORDS)])

    def words() -> str:
        ranks = (rng.pareto(0.9, rng.integers(3, 18)) * 8).astype(np.int64) % NUM_WORDS
        return " ".join(vocabulary[ranks].tolist())

    def say(role: Role, action: Action, item: Item | None = None) -> Turn:
        text = words()
        if item is None:
            return Turn(role=role, action=action, text=text)
        start = len(text) + 1
        return Turn(
            role=role,
            action=action,
            text=f"{text} {item.label}",
            items=(Mention(start=start, end=start + len(item.label), item_id=item.id),),
        )

    scenarios: list[Scenario] = []

    def dialogues() -> Iterator[Dialogue]:
        for n in range(num):
            target = items[int(rng.integers(NUM_ITEMS))]
            persona = Persona(general_preferences=words(), target_attributes=tuple(dict.fromkeys(target.attributes["genre"])))
            start = Scenario(
                corpus="made",
                domain="movie",
                split=Split.TEST,
                source_id=str(n),
                persona=persona,
                targets=(Target(item_id=target.id, title=target.label),),
            )
            scenarios.append(start)
            turns = [say(Role.RECOMMENDER, Action.GREETING), say(Role.USER, Action.DISCLOSE_GOAL)]
            for _ in range(int(rng.integers(1, 5))):
                turns.append(say(Role.RECOMMENDER, Action.RECOMMEND, items[int(rng.integers(NUM_ITEMS))]))
                turns.append(say(Role.USER, Action.FEEDBACK))
            turns.append(say(Role.RECOMMENDER, Action.RECOMMEND, target))
            ending = Ending.ACCEPTED if rng.random() < 0.6 else Ending.GAVE_UP
            turns.append(say(Role.USER, Action.ACCEPT if ending is Ending.ACCEPTED else Action.GIVE_UP))
            yield Dialogue(
                scenario_key=start.key,
                corpus="made",
                domain="movie",
                user="made",
                recommender="made",
                turns=tuple(turns),
                ending=ending,
            )

    write_records(dialogues_path, dialogues())
    write_records(scenarios_path, scenarios)


class Made:
    """The files that the groups read.

    Args:
        directory: where they lie.
        num: dialogues.
    """

    def __init__(self, directory: Path, num: int) -> None:
        self.directory, self.num = directory, num
        self.reading = 0.0
        """Processor seconds spent on it so far."""

    def _timed(self, records: Iterator[RecordT]) -> Iterator[RecordT]:
        while True:
            begin = time.process_time()  # a system call, which asked for every record would cost more than the record
            chunk = list(islice(records, 500))
            self.reading += time.process_time() - begin
            if not chunk:
                return
            yield from chunk

    def scenarios(self) -> Iterator[Scenario]:
        """One at a time."""
        return self._timed(iter(read_records(self.directory / "scenarios.jsonl", Scenario)))

    def dialogues(self) -> Iterator[Dialogue]:
        """One at a time."""
        return self._timed(iter(read_records(self.directory / "dialogues.jsonl", Dialogue)))


def simulation(made: Made) -> list[ScoreRow]:
    """Endings, lengths, goals, success."""
    return simulation_rows(summarise(made.dialogues(), made.scenarios(), catalog()), ABOUT)


def leakage(made: Made) -> list[ScoreRow]:
    """Four detectors, and every success metric in three parts."""
    items = catalog()
    checker = LeakChecker(items)
    checker.take(made.scenarios())
    reports: list[LeakReport] = []
    summary = summarise(checker.watch(made.dialogues(), reports), made.scenarios(), items)
    return leak_rows(reports, ABOUT) + simulation_part_rows(summary, reports, ABOUT)


def exposure(made: Made) -> list[ScoreRow]:
    """Coverage, Gini, novelty, repetition."""
    items = catalog()
    return exposure_rows(
        "simulation", shown_in_dialogues(made.dialogues(), items), np.arange(1, NUM_ITEMS + 1), NUM_ITEMS, ABOUT
    )


def match(made: Made) -> list[ScoreRow]:
    """Match Score between its anchors."""
    items = catalog()
    unit = np.random.default_rng(0).normal(size=(NUM_ITEMS, 64)).astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    vectors = ItemVectors(unit, np.arange(NUM_ITEMS, dtype=np.int64), {})
    cases: list[MatchCase] = simulated_cases(made.dialogues(), made.scenarios(), items)
    return match_rows({"made": cases}, vectors, items, ABOUT, metric="simulation.match_score")


def single_turns(made: Made) -> list[ScoreRow]:
    """Dist-1 to 4, self-BLEU, words, actions and their confusion, endings, perplexity; the next dialogue's turns speak."""
    predictions = []
    before: list[Turn] = []
    for dialogue in made.dialogues():
        own = [turn for turn in dialogue.turns if turn.role is Role.USER]
        predictions += [
            TurnPrediction(dialogue.scenario_key, n, turn, said, logprobs=(-1.5,) * 12)
            for n, (turn, said) in enumerate(zip(own, before or own, strict=False))
        ]
        before = own
    return turn_rows(predictions, ABOUT)


def replay(made: Made) -> list[ScoreRow]:
    """Success, early termination, failure."""
    drawn = np.random.default_rng(0).integers(len(Outcome), size=made.num).tolist()
    return replay_rows([ReplayOutcome(str(n), list(Outcome)[k]) for n, k in enumerate(drawn)], ABOUT)


def gold_turns(made: Made) -> list[ScoreRow]:
    """Recall at the gold turn, and what is named there."""
    ranks = [None if r > 3 else r for r in np.random.default_rng(0).integers(1, 9, made.num).tolist()]
    said = (next(t for t in d.turns if t.items) for d in made.dialogues())
    found = [GoldTurn(str(n), rank, turn) for n, (rank, turn) in enumerate(zip(ranks, said, strict=True))]
    return recommendation_rows(found, ABOUT, catalog=catalog())


def lists(made: Made) -> list[ScoreRow]:
    """New, repeated and all, both filters, five cut-offs: lists of 20 titles."""
    items = catalog()
    labels = np.array([item.label for item in items] + [f"Nowhere {n}" for n in range(500)])
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(labels), size=(made.num, 24))
    answers = [
        TitleList(case=f"{n}:1", titles=tuple(row[:20]), gold=(row[20 if n % 3 else 5],), mentioned=tuple(row[20 + n % 2 : 23]))
        for n, row in enumerate(labels[drawn].tolist())
    ]
    return title_list_rows(answers, items, ABOUT)


def ranking(made: Made) -> list[ScoreRow]:
    """Every method of a ranker (two here), kind and filter."""
    drawn = np.random.default_rng(0).integers(1, NUM_ITEMS, size=(made.num, 2)).tolist()
    placed = [
        Placed(str(n), n % 9 == 0, {"a": a, "b": b}, {"a": None if n % 9 == 0 else a, "b": b}) for n, (a, b) in enumerate(drawn)
    ]
    return ranking_rows(placed, ["a", "b"], replace(ABOUT, subject="ranker"))


GROUPS: dict[str, Callable[[Made], list[ScoreRow]]] = {
    "simulation": simulation,
    "leakage": leakage,
    "exposure": exposure,
    "match score": match,
    "single turns": single_turns,
    "replay": replay,
    "gold turns": gold_turns,
    "title lists": lists,
    "ranking": ranking,
}


def measure(name: str, directory: str, num: int) -> dict[str, float | int | str]:
    """Run one group in this process."""
    gc.set_threshold(*COLLECT_AFTER)  # as every verb does
    made = Made(Path(directory), num)
    cpu, wall = time.process_time(), time.perf_counter()
    found = GROUPS[name](made)
    return {
        "group": name,
        "processor_seconds": round(time.process_time() - cpu - made.reading, 1),
        "reading_seconds": round(made.reading, 1),
        "wall_seconds": round(time.perf_counter() - wall, 1),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "rows": len(found),
        "metrics": len({row.metric for row in found}),
    }


def main() -> None:
    """Print a table and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--num-dialogues", type=int, default=100_000)
    parser.add_argument("--groups", nargs="*", default=list(GROUPS), choices=list(GROUPS))
    parser.add_argument("--data", type=Path, default=None, help="directory to keep the made dialogues in, or to find them in")
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        directory = args.data or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        if not (directory / "scenarios.jsonl").is_file():
            begin = time.process_time()
            make(args.num_dialogues, directory / "scenarios.jsonl", directory / "dialogues.jsonl")
            print(f"{args.num_dialogues:,} dialogues made in {time.process_time() - begin:.0f} s (not counted)", flush=True)
        print(f"{'group':<26}{'metrics':>9}{'rows':>7}{'processor s':>13}{'reading s':>11}{'peak GB':>9}")
        results = []
        for name in args.groups:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                result = pool.apply(measure, (name, str(directory), args.num_dialogues))
            results.append(result)
            print(
                f"{name:<26}{result['metrics']:>9}{result['rows']:>7}{result['processor_seconds']:>13}{result['reading_seconds']:>11}"
                f"{float(result['peak_bytes']) / 1e9:>9.2f}",
                flush=True,
            )
    reading = max(float(r["reading_seconds"]) for r in results)
    seconds = reading + sum(float(r["processor_seconds"]) for r in results)
    peak = max(float(r["peak_bytes"]) for r in results)
    verdict = "within" if seconds < AIM_SECONDS and peak < AIM_BYTES else "NOT within"
    print(
        f"{'all':<26}{'':>16}{seconds:>13.1f}{'':>9}{peak / 1e9:>9.2f}  {verdict} {AIM_SECONDS} s and {AIM_BYTES / 1e9:.0f} GB"
    )
    if args.out is not None:
        record = {"num_dialogues": args.num_dialogues, "package_version": __version__, "groups": results}
        args.out.write_text(json.dumps(record | {"processor_seconds": round(seconds, 1), "peak_bytes": peak}, indent=1) + "\n")
        print(f"written to {args.out}")


if __name__ == "__main__":
    main()
