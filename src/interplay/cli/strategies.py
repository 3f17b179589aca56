"""`interplay evaluate strategies` and `train-strategies`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from interplay import __version__
from interplay.cli.progress import Progress
from interplay.cli.sources import Source, read_dialogues
from interplay.config import StrategiesConfig, TrainStrategiesConfig
from interplay.corpora import DATA_VARIABLE
from interplay.errors import DataError
from interplay.store import Run, prepare_output
from interplay.types import Role, ScoreRow, content_hash

if TYPE_CHECKING:
    from interplay.evaluation.strategies import StrategyCard, StrategyClassifier


def train_strategies(config: TrainStrategiesConfig) -> int:
    """`interplay evaluate train-strategies`: INSPIRED's labels become a classifier and its card.

    Raises:
        DataError: the labels can't be read, or are too few.
        RunError: the output can't be written.
    """
    from interplay.corpora.inspired import labelled_messages
    from interplay.evaluation.strategies import CARD, StrategyClassifier

    source = config.source
    if source is None:
        root = os.environ.get(DATA_VARIABLE)
        if not root:
            raise DataError(f"the labels are read from ${DATA_VARIABLE}/inspired, which is not set; set it, or pass --source")
        source = Path(root) / "inspired"
    talks = labelled_messages(source)
    prepare_output(config.out, overwrite=config.overwrite, marker=CARD)
    with Progress("train strategies", config.num_folds + 1, "parts") as progress:

        def on_step(done: int, total: int) -> None:
            progress.total(total)
            progress.update(done)

        made = StrategyClassifier.fit(config.out.name, talks, seed=config.seed, num_folds=config.num_folds, on_step=on_step)
    made.write(config.out)
    print_card(made.card)
    print(f"written to {config.out}; use it with: interplay evaluate strategies RUN --model {config.out}")
    return 0


def strategies(config: StrategiesConfig) -> int:
    """`interplay evaluate strategies`: how often each is used, and how often its user then accepts.

    Raises:
        InputError: there is nothing to look at, no labels and no --model, or no such model.
        RunError: the output can't be written.
    """
    from interplay.evaluation.scoring import About
    from interplay.evaluation.strategies import StrategyClassifier
    from interplay.evaluation.strategy_scores import MIN_TURNS, marked_turns, strategy_rows, told_rows

    model = None if config.model is None else StrategyClassifier.read(config.model)
    source = read_dialogues(config.source, config.split)
    if model is None:
        source, left_out = _labelled(source)
        given = [[t.strategies for t in d.turns if t.role is Role.RECOMMENDER] for d in source.dialogues]
        by = "labels of the corpus"
    else:
        left_out = 0
        given = [list(own) for own in model.predict([d.turns for d in source.dialogues])]
        by = f"by {model.card.name}"
    digest = content_hash([[d.key, [t.text for t in d.turns]] for d in source.dialogues])
    about = About(source.recommender, config.split or "all", config.seed, digest, simulator=source.user, condition=by)
    turns = marked_turns(source.dialogues, given)
    if not turns:
        raise DataError(f"{config.source}: the recommender says nothing in {len(source.dialogues)} conversations")
    found = strategy_rows(turns, about)
    told = told_rows(turns, about) if model is not None and any(t.told is not None for t in turns) else []
    record = config.record() | {
        "verb": "evaluate",
        "protocol": "strategies",
        "classifier": None if model is None else model.card.fingerprint,
        "data_digest": digest,
        "package_version": __version__,
    }
    run = Run.create(config.out, record, overwrite=config.overwrite)
    run.write_scores(found + told)
    who = f"{source.user} with {source.recommender}"
    print(f"{len(source.dialogues)} conversations of {who}, {len(turns)} recommender turns, strategies: {by}")
    print_strategies(found, None if model is None else model.card)
    if told:
        print_told(told)
    if left_out:
        print(f"{left_out} conversations without any label were left out; --model gives them labels")
    if source.num_faults:
        print(f"{source.num_faults} conversations that a fault ended were left out")
    if model is not None:
        _print_known(model, source)
    judged = next(row for row in found if row.metric.startswith("strategies.accept_difference"))
    print(
        f"turns: with the strategy, of {len(turns) - judged.num_skipped} with an item on offer and an answer; with, without: "
        f"the user accepts next, not measured below {MIN_TURNS} turns; a difference is a correlation, not an effect"
    )
    print(f"written to {run.path}")
    return 0


def _labelled(source: Source) -> tuple[Source, int]:
    """The conversations that have labels, and how many have none."""
    kept = [d for d in source.dialogues if any(t.strategies for t in d.turns)]
    if not kept:
        raise DataError(
            f"{source.path} has no strategy labels; pass --model DIR, made by interplay evaluate train-strategies --out DIR"
        )
    return Source(source.path, kept, source.num_faults), len(source.dialogues) - len(kept)


def _print_known(model: "StrategyClassifier", source: Source) -> None:
    from interplay.evaluation.strategies import opening_hash

    known = set(model.card.trained_openings)
    num = sum(opening_hash(d.turns) in known for d in source.dialogues)
    if num:
        print(f"note: the classifier has learnt from {num} of these conversations; their own labels are better (no --model)")


def print_card(card: "StrategyCard") -> None:
    """How well each strategy is predicted."""
    from rich.console import Console
    from rich.table import Table

    print(f"{card.num_dialogues} labelled conversations, {card.num_turns} recommender turns, {card.num_folds} folds")
    table = Table(box=None, pad_edge=False)
    table.add_column("strategy")
    for name in ("F1", "95% interval", "precision", "recall", "turns", "predicted", "random F1", "always F1"):
        table.add_column(name, justify="right")
    for s in card.scores:
        table.add_row(
            s.strategy,
            _number(s.f1),
            _interval(s.low, s.high),
            _number(s.precision),
            _number(s.recall),
            str(s.num_turns),
            str(s.num_predicted),
            _number(s.random_f1),
            _number(s.always_f1),
        )
    Console(width=110).print(table)
    print(
        f"macro-F1 {card.macro_f1:.3f} [{_interval(card.low, card.high)}]; majority {card.majority_macro_f1:.3f}, "
        f"random {card.random_macro_f1:.3f}, always {card.always_macro_f1:.3f}"
    )


def print_told(found: list[ScoreRow]) -> None:
    """What a recommender was told beside what the classifier finds in its turns, and what its user did next."""
    from rich.console import Console
    from rich.table import Table

    by_metric = {row.metric.removeprefix("strategies."): row for row in found}
    table = Table(box=None, pad_edge=False)
    table.add_column("told")
    for name in ("turns", "found", "95% interval", "lift", "95% interval", "accepted", "others", "effect", "95% interval"):
        table.add_column(name, justify="right")
    for name in [m.removeprefix("recovered.") for m in by_metric if m.startswith("recovered.")]:
        seen, lift, effect = (by_metric[f"{what}.{name}"] for what in ("recovered", "recovered_lift", "accept_effect"))
        accepted, others = (by_metric[f"{what}.{name}"] for what in ("accept_told", "accept_told_other"))
        cells = [str(seen.n), _number(seen.value), _interval(seen.low, seen.high), _number(lift.value)]
        cells += [_interval(lift.low, lift.high), _number(accepted.value), _number(others.value)]
        table.add_row(name, *cells, _number(effect.value), _interval(effect.low, effect.high))
    Console(width=140).print(table)
    seen, chance = by_metric["recovered"], by_metric["recovered_chance"]
    print(
        f"of {seen.n} strategies told, {_number(seen.value)} [{_interval(seen.low, seen.high)}] are found; "
        f"by chance {_number(chance.value)}"
    )


def print_strategies(found: list[ScoreRow], card: "StrategyCard | None") -> None:
    """Shares and differences as a table, with the classifier's F1 beside them."""
    from rich.console import Console
    from rich.table import Table

    by_metric = {row.metric.removeprefix("strategies."): row for row in found}
    names = [m.removeprefix("share.") for m in by_metric if m.startswith("share.")]
    reached = {} if card is None else {s.strategy: s.f1 for s in card.scores}
    table = Table(box=None, pad_edge=False)
    table.add_column("strategy")
    columns = ("share", "95% interval", "turns", "with", "without", "difference", "95% interval", "stratified", "95% interval")
    for name in (*columns, *(("F1 of the model",) if card else ())):
        table.add_column(name, justify="right")
    for name in names:
        rows = {
            what: by_metric[f"{what}.{name}"]
            for what in ("share", "accept_with", "accept_without", "accept_difference", "accept_difference_stratified")
        }
        cells: list[str] = []
        for what, row in rows.items():
            cells += [str(row.n)] * (what == "accept_with") + [_number(row.value)]
            if not what.startswith("accept_with"):
                cells.append(_interval(row.low, row.high))
        table.add_row(name, *cells, *((_number(reached.get(name)),) if card else ()))
    Console(width=150).print(table)
    for metric, what in (("any", "turns with at least one of the ten"), ("per_turn", "of the ten per turn")):
        row = by_metric[metric]
        print(f"{_number(row.value)} [{_interval(row.low, row.high)}] {what}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.3f} .. {high:.3f}"
