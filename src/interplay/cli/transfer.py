"""`interplay evaluate transfer`: recommenders trained on one thing, tested on others, from one TOML file.

OUT/config.json                        what was asked for, which a resume must match
OUT/models/ROW                         a recommender, as interplay train makes it
OUT/cells/ROW--COLUMN.PROTOCOL         a Run of evaluate, or of simulate
OUT/transfer.json .md                  what came of it
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from interplay import __version__
from interplay.cli.evaluate import evaluate_run
from interplay.cli.matrix import CELLS, Watch, agent_names, cell_config, hold_cell
from interplay.cli.pipeline import check_servers, chosen, close, load_agent, train
from interplay.cli.progress import Progress
from interplay.config import EvaluateConfig, TrainConfig, TransferConfig
from interplay.corpora.corpus import Corpus, read_catalog
from interplay.errors import ConfigError, InputError, InterplayError, RunError
from interplay.evaluation.transfer import TransferCell
from interplay.simulation.checkpoint import CARD
from interplay.store import Run
from interplay.types import Role, ScoreRow

MODELS = "models"
_PROTOCOLS: tuple[Literal["recommendation", "turns"], ...] = ("recommendation", "turns")


def transfer(config: TransferConfig) -> int:
    """`interplay evaluate transfer`. Returns 2 where a cell failed.

    Raises:
        InputError: a row or column is missing, given twice or can't be read, or a training broke.
    """
    from interplay.report.transfer_tables import transfer_markdown, write_transfer

    rows = [*config.trained, *config.given]
    columns = _columns(config.tested)
    users = agent_names(config.users)
    if not rows or not (columns or users):
        raise ConfigError("a transfer matrix has rows ([trained] or [given]) and columns (tested, or users with played)")
    if len({_file_name(row) for row in rows}) < len(rows):
        raise ConfigError(f"two rows of the matrix have one name: {', '.join(rows)}")
    if config.users and config.played is None:
        raise ConfigError("users talk on scenarios: say which data directory's with played")
    both = sorted(columns.keys() & users.keys())
    if both:
        raise ConfigError(f"a corpus and a user are both called {both[0]!r}; rename the directory")
    record = config.record() | {"verb": "evaluate", "form": "transfer", "package_version": __version__}
    for field in ("concurrency", "memory_gib"):
        record.pop(field)
    whole = Run.resume(config.out, record) if config.resume else Run.create(config.out, record, overwrite=config.overwrite)
    specs = {name: str(_trained(config, name, paths)) for name, paths in config.trained.items()} | dict(config.given)
    seen = {name: {path.resolve() for path in paths} for name, paths in config.trained.items()}
    cells: list[TransferCell] = []
    for column, path in columns.items():
        corpus = Corpus.read(path)
        for row, spec in specs.items():
            status, reason, scores = _measured(partial(_on_corpus, config, row, spec, column, path, corpus))
            cells.append(TransferCell(row, column, True, path.resolve() in seen.get(row, ()), status, reason, scores))
    for user, user_spec in users.items():
        for row, spec in specs.items():
            status, reason, scores = _measured(partial(_with_user, config, row, spec, user, user_spec))
            cells.append(TransferCell(row, user, False, False, status, reason, scores))
    if all(cell.status != "complete" for cell in cells):
        raise RunError(f"no cell of the transfer matrix could be measured; the first one: {cells[0].reason}")
    write_transfer(cells, {"config": whole.config}, config.out)
    print(transfer_markdown(cells))
    print(f"written to {config.out}")
    return 2 if any(cell.status == "failed" for cell in cells) else 0


def _columns(paths: Sequence[Path]) -> dict[str, Path]:
    names = [path.resolve().name for path in paths]
    if len(set(names)) < len(names):
        raise ConfigError(f"two of the corpora tested on are called {max(names, key=names.count)!r}; rename a directory")
    return dict(zip(names, paths, strict=True))


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.") or "row"


def _trained(config: TransferConfig, name: str, paths: Sequence[Path]) -> Path:
    """A row's recommender, trained unless it was before."""
    out = config.out / MODELS / _file_name(name)
    if not (out / CARD).is_file():
        settings = config.training.model_dump()
        train(TrainConfig(role="recommender", data=list(paths), out=out, resume=True, seed=config.seed, **settings))
    return out


def _measured(measure: Callable[[], list[ScoreRow]]) -> tuple[str, str | None, tuple[ScoreRow, ...]]:
    """A cell's status, why it has no scores, and its scores."""
    try:
        return "complete", None, tuple(measure())
    except RunError:
        raise
    except InputError as error:
        return "impossible", str(error), ()
    except InterplayError as error:
        return "failed", f"{type(error).__name__}: {error}", ()


def _on_corpus(config: TransferConfig, row: str, spec: str, column: str, path: Path, corpus: Corpus) -> list[ScoreRow]:
    pairs = chosen(corpus, config.split, config.num_dialogues)
    scores: list[ScoreRow] = []
    for protocol in _PROTOCOLS:
        out = config.out / CELLS / f"{_file_name(row)}--{_file_name(column)}.{protocol}"
        done = Run.read(out).scores() if (out / Run.MARKER).is_file() else []
        if not done:
            loaded = load_agent(spec, Role.RECOMMENDER, config, corpus.catalog, any_domain=config.across_domains)
            asked = EvaluateConfig(
                protocol=protocol,
                recommender=spec,
                data=path,
                out=out,
                overwrite=out.exists(),
                split=config.split,
                num_dialogues=config.num_dialogues,
                seed=config.seed,
                constrained=config.constrained,
                sampling=config.sampling,
                concurrency=config.concurrency,
                memory_gib=config.memory_gib,
                kv_cache=config.kv_cache,
            )
            done, _ = evaluate_run(asked, corpus, pairs, loaded)
        scores += done
    return scores


def _with_user(config: TransferConfig, row: str, spec: str, user: str, user_spec: str) -> list[ScoreRow]:
    assert config.played is not None  # checked before anything was trained
    catalog = read_catalog(config.played)
    agents = load_agent(user_spec, Role.USER, config, catalog), load_agent(spec, Role.RECOMMENDER, config, catalog)
    held = cell_config(config, user_spec, spec, config.played, config.out / CELLS / f"{_file_name(row)}--{_file_name(user)}")

    async def hold() -> str | None:
        try:
            await check_servers(*agents)
            with Progress("transfer", 0, "dialogues") as progress:
                return await hold_cell(held, catalog, *agents, Watch(progress, f"{row}, {user}", 0, 1))
        finally:
            await close(*agents)

    reason = asyncio.run(hold())
    if reason is not None:
        raise InterplayError(reason)
    return Run.read(held.out).scores()
