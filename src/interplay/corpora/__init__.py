"""Corpora: from raw files, or an earlier Run, to dialogues, scenarios, a catalog, and counts of what was dropped.

Knows nothing of prompts, models or backends; a language model that annotates is passed in as an `Annotator`.
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path

from interplay.corpora import cpcd, crs_arena, durecdial, inspired, opendialkg, pearl, recquest, redial, run
from interplay.corpora.annotators import Annotator, RuleAnnotator
from interplay.corpora.assemble import Loaded, Tools
from interplay.corpora.corpus import Corpus
from interplay.corpora.splits import SplitBy, assign_splits, overlap_report, split_by_worker
from interplay.corpora.tagger import ActionTagger, RuleTagger, load_tagger
from interplay.errors import DataError

Loader = Callable[[Path, Tools], Loaded]
"""Reads one corpus from a directory; raises DataError."""

LOADERS: dict[str, Loader] = {
    "pearl": pearl.load,
    "redial": redial.load,
    "inspired": inspired.load,
    "opendialkg-movies": opendialkg.load_movies,
    "opendialkg-books": opendialkg.load_books,
    "durecdial-movies": durecdial.load_movies,
    "durecdial-music": durecdial.load_music,
    "cpcd": cpcd.load,
    "recquest": recquest.load,
    "crs-arena": crs_arena.load,
    "crs-arena-open": crs_arena.load_open,
    "crs-arena-closed": crs_arena.load_closed,
    "run": run.load,
}
"""The corpora known by name."""

DATA_VARIABLE = "INTERPLAY_DATA"
"""Environment variable: the directory that holds one directory per corpus, and `iard` for the tagger."""

_FOLDERS = {
    "opendialkg-movies": "opendialkg",
    "opendialkg-books": "opendialkg",
    "durecdial-movies": "durecdial2_en",
    "durecdial-music": "durecdial2_en",
    "crs-arena": "crs_arena",
    "crs-arena-open": "crs_arena",
    "crs-arena-closed": "crs_arena",
}
_log = logging.getLogger(__name__)


def load_corpus(
    name: str,
    source: Path | None = None,
    *,
    tagger: ActionTagger | None = None,
    annotator: Annotator | None = None,
    split_by: SplitBy = "target",
    valid_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
    whole: bool = False,
) -> Corpus:
    """Read a corpus, derive its scenarios and divide it.

    Args:
        name: one of `LOADERS`.
        source: the directory of its files; None for the one in $INTERPLAY_DATA.
        tagger: gives turns their Action; None for the one trained on $INTERPLAY_DATA/iard, or on `iard` beside the source,
            or by rules where neither is there (noted in the counts and logged).
        annotator: makes the general preferences and target attributes; None for the rules.
        split_by: what the test split shares with no other.
        valid_fraction: share of the conversations, [0, 1).
        test_fraction: share of the conversations, [0, 1).
        seed: of the draw of the splits; nothing else is random.
        whole: keep the turns after the accepted item, which a simulation has no place for but a ranker learns from.

    Raises:
        DataError: the name is unknown, or the files are missing, damaged or of another corpus.
    """
    if name not in LOADERS:
        raise DataError(f"there is no corpus {name!r}; accepted: {', '.join(LOADERS)}")
    path = source if source is not None else _default_source(name)

    def make_tagger() -> ActionTagger:
        made = load_tagger(_iard(path))
        if isinstance(made, RuleTagger):
            _log.warning(
                "IARD was not found (set %s to the directory that holds iard/): actions are tagged by rules alone",
                DATA_VARIABLE,
            )
        return made

    loaded = LOADERS[name](path, Tools(tagger, make_tagger, annotator or RuleAnnotator(), whole))
    logs = loaded.dialogues
    if split_by == "worker":
        splits = split_by_worker(loaded.scenarios, valid_fraction, test_fraction, seed)
        both = [(s.model_copy(update={"split": p}), d) for s, d, p in zip(loaded.scenarios, logs, splits, strict=True) if p]
        loaded.counts.dropped["one speaker belongs to another split than the other"] = len(logs) - len(both)
        loaded.counts.dialogues_kept = len(both)
        scenarios, logs = [s for s, _ in both], [d for _, d in both]
    else:
        scenarios = assign_splits(loaded.scenarios, split_by, valid_fraction, test_fraction, seed)
    # The split is part of the scenario's key.
    dialogues = [d.model_copy(update={"scenario_key": s.key}) for d, s in zip(logs, scenarios, strict=True)]
    overlap = overlap_report(scenarios, dialogues)
    return Corpus(loaded.name, dialogues, scenarios, loaded.catalog, loaded.counts, overlap)


def _default_source(name: str) -> Path:
    if name == "run":
        raise DataError("the corpus run needs the directory of the Run: pass --source RUN")
    root = os.environ.get(DATA_VARIABLE)
    if not root:
        raise DataError(f"no directory was given for {name}: pass --source DIR, or set {DATA_VARIABLE}")
    return Path(root) / _FOLDERS.get(name, name)


def _iard(source: Path) -> Path | None:
    root = os.environ.get(DATA_VARIABLE)
    for path in ([Path(root) / "iard"] if root else []) + [source.parent / "iard"]:
        if path.is_dir():
            return path
    return None
