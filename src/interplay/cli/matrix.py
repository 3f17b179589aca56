"""`interplay evaluate matrix`: every user simulator with every recommender; each cell is a Run of its own.

OUT/config.json                  what was asked for, which a resume must match
OUT/cells/USER--RECOMMENDER/     a Run, as simulate writes it; logs/failure.txt where the cell broke
OUT/matrix.json .csv .md .tex    what came of it
OUT/index.html, OUT/figures/     to look at
"""

import asyncio
import re
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from interplay import __version__
from interplay.cli.pipeline import (
    SCENARIOS,
    begin_simulation,
    check_servers,
    close,
    count_endings,
    hold_owed,
    load_agent,
    num_owed,
    score_simulation,
)
from interplay.cli.progress import Progress
from interplay.config import MatrixConfig, SimulateConfig, SimulationFlags
from interplay.corpora.corpus import read_catalog
from interplay.errors import ConfigError, InputError, RunError
from interplay.evaluation.matrix import FAULT_ENDINGS, Cell, Matrix, judge_matrix, status_of
from interplay.evaluation.scoring import SUCCESS_METRICS, is_count
from interplay.evaluation.values import VALUES, read_values
from interplay.simulation.specs import LoadedAgent
from interplay.store import CODE_VERSIONS, Run, write_lines
from interplay.types import Catalog, Dialogue, Ending, Role

CELLS = "cells"
FAILURE = Path("logs") / "failure.txt"
"""In a cell: how it broke."""


def matrix(config: MatrixConfig) -> int:
    """`interplay evaluate matrix`. Returns 2 where a cell failed or lacks conversations.

    Raises:
        InputError: an agent is unknown, given twice or of another domain, the split is empty, or no cell could be begun.
    """
    from interplay.report.matrix_page import matrix_markdown, write_matrix

    catalog = read_catalog(config.data)
    users, recommenders = agent_names(config.users), agent_names(config.recommenders)
    agents = {
        (role, name): load_agent(spec, role, config, catalog)
        for role, named in ((Role.USER, users), (Role.RECOMMENDER, recommenders))
        for name, spec in named.items()
    }
    record = config.record() | {
        "verb": "evaluate",
        "form": "matrix",
        "agents": {role.value: {n: a.fingerprint for (r, n), a in agents.items() if r is role} for role in Role},
        "catalog_digest": catalog.digest,
        "package_version": __version__,
    }
    for field in ("concurrency", "memory_gib"):
        record.pop(field)
    whole = Run.resume(config.out, record) if config.resume else Run.create(config.out, record, overwrite=config.overwrite)
    cells = asyncio.run(_hold_all(config, catalog, users, recommenders, agents))
    if all(cell.status == "failed" for cell in cells):
        raise RunError(f"no cell of the matrix could be scored; the first one: {cells[0].reason}")
    found = judge_matrix(list(users), list(recommenders), cells, SUCCESS_METRICS, config.seed)
    write_matrix(found, _about(whole, found), config.out)
    print(matrix_markdown(found))
    print(f"written to {config.out}; open {config.out / 'index.html'}")
    return 2 if any(cell.status != "complete" for cell in cells) else 0


def agent_names(specs: Sequence[str]) -> dict[str, str]:
    """Short distinct names of agents, with their specs: the last part of a path, the model behind a server.

    Raises:
        ConfigError: an agent is given twice.

    >>> agent_names(["agenda", "runs/a/user", "ranker:runs/movies", "http://localhost:8000/v1#tiny"])
    {'agenda': 'agenda', 'user': 'runs/a/user', 'ranker:movies': 'ranker:runs/movies', 'tiny': 'http://localhost:8000/v1#tiny'}
    >>> list(agent_names(["runs/a/user", "runs/b/user"]))
    ['runs/a/user', 'runs/b/user']
    """
    twice = [spec for spec, num in Counter(specs).items() if num > 1]
    if twice:
        raise ConfigError(f"{twice[0]} is given twice; a matrix takes each agent once per side")
    short = [_short(spec) for spec in specs]
    counts = Counter(_file_name(name) for name in short)
    return {name if counts[_file_name(name)] == 1 else spec: spec for name, spec in zip(short, specs, strict=True)}


def _short(spec: str) -> str:
    server = re.fullmatch(r"https?://[^#]*#(.+)", spec)
    if server:
        return server.group(1)
    kind, colon, rest = spec.partition(":") if re.match(r"[a-z]+:", spec) else ("", "", spec)
    return f"{kind}{colon}{Path(rest).name or rest}"


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.") or "agent"


def cell_path(user: str, recommender: str) -> str:
    """Where a cell's Run lies, relative to the matrix."""
    return f"{CELLS}/{_file_name(user)}--{_file_name(recommender)}"


def cell_config(config: SimulationFlags, user: str, recommender: str, data: Path, out: Path, **changed: Any) -> SimulateConfig:
    """The config under which `interplay simulate` would make the same Run.

    Args:
        config: the flags that all Runs share.
        user: spec of the user simulator.
        recommender: spec of the recommender.
        data: directory of the scenarios.
        out: the Run's directory.
        changed: flags in which this Run differs.
    """
    shared = {name: getattr(config, name) for name in SimulationFlags.model_fields if name not in ("config", "dry_run")}
    fixed = {"user": user, "recommender": recommender, "scenarios": data, "out": out, "resume": True, "overwrite": False}
    return SimulateConfig(**(shared | fixed | changed))


async def _hold_all(
    config: MatrixConfig,
    catalog: Catalog,
    users: dict[str, str],
    recommenders: dict[str, str],
    agents: dict[tuple[Role, str], LoadedAgent],
) -> list[Cell]:
    silent: dict[tuple[Role, str], str] = {}
    cells: list[Cell] = []
    try:
        for key, agent in agents.items():
            try:
                await check_servers(agent)
            except InputError as error:
                silent[key] = str(error)
        with Progress("matrix", 0, "dialogues") as progress:
            for user, user_spec in users.items():
                for recommender, recommender_spec in recommenders.items():
                    path = cell_path(user, recommender)
                    simulated = cell_config(config, user_spec, recommender_spec, config.data, config.out / path)
                    pair = agents[Role.USER, user], agents[Role.RECOMMENDER, recommender]
                    reason = silent.get((Role.USER, user)) or silent.get((Role.RECOMMENDER, recommender))
                    if reason is None:
                        watch = Watch(progress, f"{user}, {recommender}", len(cells), len(users) * len(recommenders))
                        reason = await hold_cell(simulated, catalog, *pair, watch)
                    cells.append(_read_cell(user, recommender, path, simulated, reason))
    finally:
        await close(*agents.values())
    # A cell whose agent never answered was not begun; all cells owe the same.
    owed = max(cell.num_owed for cell in cells)
    return [replace(cell, num_owed=owed) for cell in cells]


class Watch:
    """Tells the progress of several Runs from within one of them.

    Args:
        progress: of all.
        place: which one this is, in words.
        num_before: Runs before it.
        num_cells: Runs in all.
    """

    def __init__(self, progress: Progress, place: str, num_before: int, num_cells: int) -> None:
        self._progress, self._place = progress, f"cell {num_before + 1} of {num_cells}: {place}"
        self._num_before, self._num_cells = num_before, num_cells
        self._done = 0

    def begin(self, done: int, owed: int) -> None:
        """`done` of `owed` conversations were held before."""
        self._progress.total(owed * self._num_cells)
        self._done = self._num_before * owed + done
        self._progress.update(self._done, self._place)

    def count(self, dialogue: Dialogue) -> None:
        """One more was held."""
        self._done += 1
        self._progress.update(self._done, self._place)


async def hold_cell(
    config: SimulateConfig, catalog: Catalog, user: LoadedAgent, recommender: LoadedAgent, watch: Watch
) -> str | None:
    """Hold what a cell owes and score it. Returns why it broke, or None.

    Raises:
        RunError: nothing can be written; this is no fault of the cell.
    """
    run = begin_simulation(config, catalog, user, recommender)
    (run.path / FAILURE).unlink(missing_ok=True)
    finished = frozenset(run.finished_keys())
    owed = num_owed(run, config)
    watch.begin(len(finished), owed)
    if len(finished) == owed and run.scores_path.is_file() and (run.path / VALUES).is_file():
        return None
    for agent in (user, recommender):
        counted = getattr(agent.agent, "retries", None)
        if isinstance(counted, Counter):
            counted.clear()  # the agent is shared: what other cells asked again is not this one's
    try:
        held = await hold_owed(run, config, user, recommender, finished, on_dialogue=watch.count)
        score_simulation(run, catalog, user, recommender, config.seed, num_held=held)
    except RunError:
        raise
    except Exception as error:  # whatever it is, the other cells are owed their conversations
        write_lines(run.path / FAILURE, [traceback.format_exc().rstrip()])
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return None


def _read_cell(user: str, recommender: str, path: str, config: SimulateConfig, reason: str | None) -> Cell:
    run_path = config.out
    if not (run_path / SCENARIOS).is_file():
        return Cell(user, recommender, path, "failed", reason, 0, 0, {}, (), {})
    run = Run.read(run_path)
    endings = count_endings(run.dialogues())
    owed = num_owed(run, config)
    status = "failed" if reason is not None else status_of(endings, owed)
    faults = {ending.value: endings[ending] for ending in FAULT_ENDINGS}
    if status == "failed":
        # Scores of an earlier attempt are not those of the cell as it is now.
        return Cell(user, recommender, path, status, reason or _commonest_fault(run), endings.total(), owed, faults, (), {})
    # How often answers were asked for again is known of one invocation only, and would tell a resumed matrix from another.
    scores = tuple(row for row in run.scores() if not is_count(row.metric))
    reason = _commonest_fault(run) if status == "partial" else None
    return Cell(user, recommender, path, status, reason, endings.total(), owed, faults, scores, read_values(run))


def _commonest_fault(run: Run) -> str | None:
    faults = Counter(
        f"{d.failure.role.value}: {d.failure.reason}"
        for d in run.dialogues()
        if d.failure is not None and d.ending in (Ending.BACKEND_FAILURE, Ending.CONTEXT_OVERFLOW)
    )
    return faults.most_common(1)[0][0] if faults else None


def _about(whole: Run, found: Matrix) -> dict[str, Any]:
    """What all numbers of the matrix share (requirement I2)."""
    rows = [row for cell in found.cells for row in cell.scores]
    return {
        "agents": whole.config["agents"],
        "seed": whole.config["seed"],
        "data_digest": next((row.data_digest for row in rows), None),
        "catalog_digest": whole.config["catalog_digest"],
        "code_versions": sorted({row.package_version for row in rows} | set(whole.config[CODE_VERSIONS])),
        "conversations_per_cell": max(cell.num_owed for cell in found.cells),
        "config": {name: value for name, value in whole.config.items() if name != "agents"},
    }
