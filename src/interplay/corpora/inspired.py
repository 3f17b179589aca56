"""INSPIRED (Hayati et al., EMNLP 2020): movie conversations with labels of sociable strategies.

Files: the official `train.tsv`, `dev.tsv`, `test.tsv` (a message per row, strategy labels, outcome), and
`train_text.jsonl`, the training conversations in a re-formatted file without labels; it is read only where `train.tsv`
is missing. `survey/dialog_outcomes.tsv` gives outcomes for ids whose rows have none. Plain or .gz.

The links to movies were made automatically and are often wrong ("I am", "Greetings"); a link is kept only where the title
stands in the text and is not likely to be meant as ordinary words, and titles that the source missed are looked for too.
"""

import html
import re
from collections.abc import Iterable
from pathlib import Path

from interplay.corpora.assemble import Conversation, Loaded, Tools, assemble
from interplay.corpora.bundled import bundled_movies
from interplay.corpora.corpus import Counts
from interplay.corpora.endings import Wanted
from interplay.corpora.facts import item_id_for, movie_tables, with_facts
from interplay.corpora.files import find_files, need_files, read_table, wrong_record
from interplay.corpora.linking import TitleLinker
from interplay.corpora.messages import Spoken, write_titles
from interplay.errors import DataError
from interplay.store import read_json_lines
from interplay.titles import split_year, title_key
from interplay.types import DOMAINS, Catalog, Item, Role

SOCIABLE = (
    "personal_opinion",
    "personal_experience",
    "similarity",
    "encouragement",
    "offer_help",
    "preference_confirmation",
    "self_modeling",
    "credibility",
)
"""The eight sociable strategies, as INSPIRED's files write them (Hayati et al. 2020, table 2)."""
ELICITATION = ("experience_inquiry", "opinion_inquiry")
"""The two strategies that elicit preferences."""
_COLUMNS = ("dialog_id", "utt_id", "speaker", "text", "movies", "expert_label")
_ROLES = {"RECOMMENDER": Role.RECOMMENDER, "SEEKER": Role.USER}
TABLES = ("train.tsv", "dev.tsv", "test.tsv")
TEXTS = "train_text.jsonl"


class _Log:
    """One conversation before linking: (role, text, proposed movie names, strategies) per message."""

    def __init__(self, key: str, outcome: str | None) -> None:
        self.key = key
        self.outcome = outcome
        self.messages: list[tuple[Role, str, list[str], tuple[str, ...]]] = []


def load(source: Path, tools: Tools) -> Loaded:
    """The INSPIRED conversations in a directory.

    Raises:
        DataError: no INSPIRED file is there, or one is damaged.
    """
    counts = Counts()
    paths = need_files(source, "inspired", *TABLES, TEXTS)
    outcomes = {
        row["dialog_id"]: row["coarse_label"]
        for path in find_files(source, "survey/dialog_outcomes.tsv", "dialog_outcomes.tsv")
        for _, row in read_table(path, "inspired outcomes", ("dialog_id", "coarse_label"), delimiter="\t")
    }
    has_train = any(p.name.startswith("train.tsv") for p in paths)
    logs: list[_Log] = []
    for path in paths:
        if path.name.startswith(TEXTS):
            if not has_train:
                logs.extend(_read_texts(path))
        else:
            logs.extend(_read_rows(path, outcomes))
    counts.dialogues_read = len(logs)
    catalog = _catalog(source, logs)
    linker = TitleLinker(catalog)
    return assemble("inspired", [_conversation(log, catalog, linker, counts) for log in logs], catalog, tools, counts)


def labelled_messages(source: Path) -> list[list[Spoken]]:
    """The conversations that carry strategy labels, message by message: what strategies are learnt from.

    Nothing is cut or dropped. A message of the recommender has its labels in `strategies`; those of a merged turn
    (`Turn.strategies`) no longer tell which of its sentences they are of.

    Raises:
        DataError: none of `TABLES` is there, one is damaged, or none of its messages has a label.
    """
    logs = [log for path in need_files(source, "inspired", *TABLES) for log in _read_rows(path, {})]
    if not any(strategies for log in logs for _, _, _, strategies in log.messages):
        raise DataError(f"{source}: no message of {' or '.join(TABLES)} has a strategy label (column expert_label)")
    catalog = _catalog(source, logs)
    linker = TitleLinker(catalog)
    counts = Counts()
    return [_spoken(log, catalog, linker, counts) for log in logs]


def _read_rows(path: Path, outcomes: dict[str, str]) -> Iterable[_Log]:
    logs: dict[str, _Log] = {}
    for number, row in read_table(path, "inspired", _COLUMNS, delimiter="\t"):
        key = row["dialog_id"]
        if row["speaker"] not in _ROLES:
            raise wrong_record(path, number, "inspired", "a speaker RECOMMENDER or SEEKER", row["speaker"])
        log = logs.get(key)
        if log is None:
            log = logs[key] = _Log(key.removesuffix(".pkl"), row.get("coarse_label", "").strip() or outcomes.get(key))
        strategies = tuple(s for s in (row["expert_label"], row.get("second_label", "")) if s.strip())
        names = [n.strip() for n in row["movies"].split(";") if n.strip()]
        log.messages.append((_ROLES[row["speaker"]], row["text"], names, strategies))
    return logs.values()


def _read_texts(path: Path) -> Iterable[_Log]:
    for number, record in read_json_lines(path):
        if not isinstance(record, list) or not all(isinstance(t, dict) and "text" in t and "role" in t for t in record):
            raise wrong_record(path, number, "inspired", "a list of messages with text and role", record)
        log = _Log(f"train-{number}", None)
        for message in record:
            if message["role"] not in _ROLES:
                raise wrong_record(path, number, "inspired", "a role RECOMMENDER or SEEKER", message["role"])
            log.messages.append((_ROLES[message["role"]], message["text"], list(message.get("movie") or ()), ()))
        yield log


def _catalog(source: Path, logs: Iterable[_Log]) -> Catalog:
    """The bundled movies and all that the source links to, with facts where a table has them."""
    tables = movie_tables(source, bundled_movies())
    items = {(title_key(i.title), i.year): i for i in bundled_movies()}
    ids = {i.id for i in items.values()}
    for log in logs:
        for _, _, names, _ in log.messages:
            for name in names:
                title, year = split_year(name)
                if title_key(title) and (title_key(title), year) not in items:
                    item = with_facts(Item(id=item_id_for(title, year, ids), title=title, year=year), tables)
                    items[(title_key(title), year)] = item
                    ids.add(item.id)
    # Titles that the source missed: the tables' movies, but none that the source or an earlier table has in another year.
    titles = {key for key, _ in items}
    for table in tables:
        for item in table:
            if title_key(item.title) not in titles and len(title_key(item.title).split()) > 1 and item.id not in ids:
                items[(title_key(item.title), item.year)] = item
                ids.add(item.id)
        titles = {key for key, _ in items}
    return Catalog(items.values(), DOMAINS["movie"])


def _spoken(log: _Log, catalog: Catalog, linker: TitleLinker, counts: Counts) -> list[Spoken]:
    """The messages of a conversation with their titles linked, not merged."""
    messages: list[Spoken] = []
    meant: dict[str, str] = {}
    for role, source, names, strategies in log.messages:
        text = _mended(html.unescape(source))
        # One title means one item throughout a conversation, whatever years the automatic links gave it.
        for name in names:
            item = catalog.find(name, year_tolerance=0)
            if item is not None:
                meant.setdefault(title_key(item.title), item.id)
        proposed = [meant[k] for n in names if (k := title_key(n)) in meant]
        spans = linker.find(text, proposed)
        linked = {title_key(s.item.title) for s in spans}
        missed = sum(title_key(n) not in linked for n in set(names))
        if missed:
            counts.note("titles proposed by the source and not linked", missed)
        written, mentions = write_titles(text, spans)
        messages.append(Spoken(role, written, mentions, (source,), strategies if role is Role.RECOMMENDER else ()))
    return messages


def _conversation(log: _Log, catalog: Catalog, linker: TitleLinker, counts: Counts) -> Conversation:
    messages = _spoken(log, catalog, linker, counts)
    wanted: list[Wanted] | None = None
    if log.outcome is not None:
        wanted = [] if log.outcome.startswith("reject") else _offered(messages)
    return Conversation(
        source_id=log.key,
        user_id=None,
        messages=messages,
        wanted=wanted,
        lenient=log.outcome is None,
        drop_unlinked=log.outcome is None or not log.outcome.startswith("reject"),
    )


def _mended(text: str) -> str:
    """Apostrophes that an earlier conversion of the source made into replacement characters, put back."""
    return re.sub(r"\ufffd+", "", re.sub(r"(?<=\w)\ufffd+(?=\w)", "'", text))


def _offered(messages: list[Spoken]) -> list[Wanted]:
    """What the recommender named, the last first: where a turn is tagged `accept`, then surely the last."""
    named = [m.item_id for s in messages if s.role is Role.RECOMMENDER for m in s.mentions if m.item_id is not None]
    distinct = list(dict.fromkeys(reversed(named)))
    return [Wanted(i, sure=False) for i in distinct] + [Wanted(i) for i in distinct]
