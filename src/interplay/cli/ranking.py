"""`interplay items train-ranker` and `interplay evaluate recommendation --ranker`."""

import json
import random
import sys
from dataclasses import replace
from pathlib import Path

from interplay import __version__
from interplay.cli.progress import Progress
from interplay.config import EvaluateConfig, ItemsTrainRankerConfig
from interplay.corpora.corpus import Corpus
from interplay.errors import ConfigError, DataError
from interplay.types import Item, ScoreRow, Split


def train_ranker(config: ItemsTrainRankerConfig) -> int:
    """`interplay items train-ranker`: conversations become a ranker.

    Raises:
        DataError: the data or the catalog can't be read, or there is nothing to learn from.
        RunError: the output can't be written.
    """
    from interplay.items.ranker import MARKER, ItemRanker, TrainingLog
    from interplay.store import prepare_output

    corpus = Corpus.read(config.data)
    known = {} if config.catalog is None else known_items(corpus, config.catalog)
    logs = [TrainingLog(d, s.recommender_id) for s, d in corpus.pairs(Split.TRAIN)]
    if config.num_dialogues is not None and config.num_dialogues < len(logs):
        kept = sorted(random.Random(config.seed).sample(range(len(logs)), config.num_dialogues))
        logs = [logs[n] for n in kept]
    prepare_output(config.out, overwrite=config.overwrite, marker=MARKER)
    with Progress("train ranker", 1, "steps") as progress:

        def on_step(done: int, total: int, following: str) -> None:
            progress.total(total)
            progress.update(done, following)

        ranker = ItemRanker.fit(corpus.catalog, logs, known=known, seed=config.seed, epochs=config.epochs, on_step=on_step)
    ranker.write(config.out)
    card = ranker.card
    print(f"ranker of {card['items']} {corpus.catalog.domain.plural}, {card['items_known_elsewhere']} known to --catalog")
    print(f"  learned from {card['cases']} turns in {card['dialogues']} conversations, {card['words']} words known")
    if not card["trees"]:
        print("  re-ranks by a linear model; for trees: pip install 'interplay[rank]'", file=sys.stderr)
    print(f"written to {config.out}")
    return 0


def known_items(corpus: Corpus, path: Path) -> dict[str, Item]:
    """What a catalog knows of the corpus's items: by the id it has from that corpus, else by title and year."""
    from interplay.items.catalogs import BuiltCatalog

    built = BuiltCatalog.read(path)
    if built.catalog.domain.name != corpus.domain.name:
        raise DataError(
            f"{path} is a catalog of {built.catalog.domain.plural}; the conversations are about {corpus.domain.plural}"
        )
    found = {i.id: built.resolve(f"{corpus.name}:{i.id}") or built.catalog.find(i.label) for i in corpus.catalog}
    return {i: item for i, item in found.items() if item is not None}


def evaluate_ranker(config: EvaluateConfig) -> int:
    """`interplay evaluate recommendation --ranker`: every method of a ranker, in one Run.

    Raises:
        ConfigError: an agent is named too, or the protocol is another.
        DataError: the ranker is of another catalog, or no case is left.
    """
    from interplay.cli.pipeline import chosen, new_run, print_rows
    from interplay.evaluation.match import match_rows, ranked_cases
    from interplay.evaluation.ranking import place_cases, ranking_rows
    from interplay.evaluation.scoring import About, data_digest
    from interplay.items.contexts import cases_of
    from interplay.items.ranker import ItemRanker
    from interplay.items.vectors import ItemVectors
    from interplay.store import write_lines

    if config.protocol != "recommendation" or config.user is not None or config.recommender is not None:
        raise ConfigError("--ranker is measured alone, by the protocol recommendation: leave out --user and --recommender")
    corpus = Corpus.read(config.data)
    pairs = chosen(corpus, config.split, config.num_dialogues)
    ranker = ItemRanker.read(config.ranker, corpus.catalog) if config.ranker is not None else None
    assert ranker is not None
    vectors = None if config.vectors is None else ItemVectors.read(config.vectors, corpus.catalog)
    cases = [c for s, d in pairs for c in cases_of(d, s.source_id)]
    if not cases:
        raise DataError(f"no recommender turn of the {config.split} split of {config.data} names an item")
    record = config.record() | {
        "verb": "evaluate",
        "ranker": ranker.card,
        "data_digest": corpus.digest,
        "package_version": __version__,
    }
    scenarios = [s for s, _ in pairs]
    run = new_run(config.out, record, corpus.catalog, scenarios, config.overwrite)
    lines: list[str] = []
    with Progress("rank", len(cases), "cases") as progress:
        placed = place_cases(
            ranker,
            cases,
            ranker.methods,
            on_progress=lambda done, _: progress.update(done),
            predictions=None if config.predictions is None else lambda p: lines.append(json.dumps(p)),
        )
    about = About(str(config.ranker), config.split, config.seed, data_digest(scenarios))
    rows = ranking_rows(placed, ranker.methods, about)
    matched = []
    if vectors is not None:
        named = {f"{about.subject} {m}": c for m, c in ranked_cases(ranker, cases, ranker.methods).items()}
        matched = match_rows(named, vectors, corpus.catalog, replace(about, condition="new, seen removed"))
    run.write_scores(rows + matched)
    if config.predictions is not None:
        write_lines(config.predictions, lines)
    print_table(rows, ranker.methods, about.subject)
    if matched:
        print_rows(matched)
    print(f"{len(placed)} items in {len(cases)} turns of {len(pairs)} conversations; written to {run.path}")
    return 0


def print_table(rows: list[ScoreRow], methods: tuple[str, ...], subject: str) -> None:
    """Recall@1/10/50, NDCG@10 and MRR of every method for each kind and filter."""
    value = {(r.subject, r.condition, r.metric): r for r in rows}
    for condition in dict.fromkeys(r.condition for r in rows):
        count = next(r.n for r in rows if r.condition == condition)
        print(f"\n{condition} (n = {count})\n{'':<16}recall@1            @10                 @50                 ndcg@10  mrr")
        for method in methods:
            cells = []
            for metric in ("recall@1", "recall@10", "recall@50"):
                row = value[f"{subject} {method}", condition, f"ranking.{metric}"]
                if row.value is None or row.low is None or row.high is None:
                    cells.append(f"{'-' if row.value is None else f'{row.value:.3f}':<18}")
                else:
                    cells.append(f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]".replace("0.", "."))
            for metric in ("ndcg@10", "mrr"):
                found = value[f"{subject} {method}", condition, f"ranking.{metric}"].value
                cells.append("-" if found is None else f"{found:.3f}  ".replace("0.", "."))
            print(f"{method:<16}{'  '.join(cells)}")
    print()
