"""`interplay evaluate latents`: what kinds of users a set of conversations shows, and whether a classifier reads them off."""

from pathlib import Path

from interplay import __version__
from interplay.cli.sources import read_dialogues
from interplay.config import LatentsConfig
from interplay.errors import DataError
from interplay.store import Run, read_records, write_records
from interplay.types import Role, ScoreRow, content_hash


def latents(config: LatentsConfig) -> int:
    """`interplay evaluate latents`: OUT/latents.jsonl with a line per conversation, and OUT/scores.jsonl.

    Raises:
        InputError: there is nothing to look at, or the labels belong to other scenarios.
        RunError: the output can't be written.
    """
    from interplay.evaluation.latent_scores import LATENTS, score_latents, score_told
    from interplay.evaluation.scoring import About
    from interplay.metrics.latents import DialogueLatents, derive_latents

    source = read_dialogues(config.source, config.split)
    spoken = [d for d in source.dialogues if any(t.role is Role.USER for t in d.turns)]
    if not spoken:
        raise DataError(f"{config.source}: no conversation with a turn of the user is there")
    given, known = None, len(spoken)
    is_told = config.labels is None and any(d.traits or any(t.cues for t in d.turns) for d in spoken)
    condition = "labels that the users were told" if is_told else "labels read off the same text"
    if config.labels is not None:
        file = config.labels / LATENTS if config.labels.is_dir() else config.labels
        given = {record.scenario_key: record.session for record in read_records(file, DialogueLatents)}
        known = sum(d.scenario_key in given for d in spoken)
        if not known:
            raise DataError(f"{file} has no label of a scenario of {config.source}; it must be of the data that was played")
        condition = f"labels of {_name(config.labels)}"
    found = [derive_latents(d) for d in spoken]
    digest = content_hash([[d.key, [t.text for t in d.turns]] for d in spoken])
    about = About(source.user, config.split or "all", config.seed, digest, condition=condition)
    record = config.record() | {
        "verb": "evaluate",
        "protocol": "latents",
        "data_digest": digest,
        "package_version": __version__,
    }
    run = Run.create(config.out, record, overwrite=config.overwrite)
    write_records(run.path / LATENTS, found)
    table = score_told(spoken, found, about) if is_told else score_latents(spoken, found, about, given=given)
    run.write_scores(table.rows)
    print(
        f"{len(spoken)} conversations of {source.user} with {source.recommender}, {sum(len(o.turns) for o in found)} user turns"
    )
    print_latents(table.rows)
    print(f"recovered: balanced accuracy on unseen conversations, {condition}", end="")
    if is_told:
        print("; followed: share that shows what was asked for\n")
        print_steered(table.rows)
    else:
        print("; foretold: of the second half from the first")
    for number, why in (
        (len(source.dialogues) - len(spoken), "without a turn of the user"),
        (source.num_faults, "ended by a fault"),
    ):
        if number:
            print(f"{number} conversations {why} were left out")
    if known < len(spoken):
        print(f"{len(spoken) - known} conversations have no label in {config.labels}")
    print(f"written to {run.path}")
    return 0


def print_latents(found: list[ScoreRow]) -> None:
    """One line per latent: its distribution, and how well it is recovered."""
    from rich.console import Console
    from rich.table import Table

    by_metric = {row.metric: row for row in found}
    shares: dict[str, list[str]] = {}
    for row in found:
        if row.metric.startswith("latents.share."):
            name, _, value = row.metric.removeprefix("latents.share.").partition(".")
            shares.setdefault(name, []).append(f"{value} {'-' if row.value is None else f'{row.value:.2f}'}")
    table = Table(box=None, pad_edge=False)
    table.add_column("latent")
    table.add_column("how often")
    last = "followed" if any(metric.startswith("latents.followed.") for metric in by_metric) else "foretold"
    for name in ("recovered", "95% interval", "majority", "n", last, "95% interval"):
        table.add_column(name, justify="right")
    for name, parts in shares.items():
        cells = [name, ", ".join(parts)]
        recovered = by_metric.get(f"latents.recovered.{name}")
        majority = by_metric.get(f"latents.majority.{name}")
        if recovered is not None and majority is not None:
            cells += [*_cells(recovered), _number(majority.value), str(recovered.n)]
        further = by_metric.get(f"latents.{last}.{name}")
        if further is not None:
            cells += _cells(further)
        table.add_row(*cells)
    Console(width=150).print(table)


def print_steered(found: list[ScoreRow]) -> None:
    """What was asked for and what came of it, one line per latent and value."""
    from rich.console import Console
    from rich.table import Table

    from interplay.evaluation.latent_scores import REALISED

    table = Table(box=None, pad_edge=False)
    for name in ("latent", "asked for"):
        table.add_column(name)
    for name in ("realised", "95% interval", "n"):
        table.add_column(name, justify="right")
    table.add_column("which is")
    latest = None
    for row in found:
        if row.metric.startswith("latents.realised."):
            name, _, value = row.metric.removeprefix("latents.realised.").partition(".")
            table.add_row(
                "" if name == latest else name, value, *_cells(row), str(row.n), REALISED[name] if name != latest else ""
            )
            latest = name
    Console(width=150).print(table)


def _cells(row: ScoreRow) -> list[str]:
    return [_number(row.value), "" if row.low is None or row.high is None else f"{row.low:.3f} .. {row.high:.3f}"]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _name(path: Path) -> str:
    return path.name if path.is_dir() else path.parent.name or path.name
