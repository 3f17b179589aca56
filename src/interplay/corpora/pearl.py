"""PEARL (Kim et al., Findings of ACL 2024): synthetic movie conversations built from the reviews of real users.

Files: any `*.jsonl` or `*.json` (a list of records, or an object with the list under "data") with one record per
conversation. Only `dialogue` and `user_persona` must be there; titles (`gt_movie_title`, `seen_movie_titles`), facts
(`gt_genre`, `gt_director`, `gt_cast`) and `user_id` are used where they are. `movies.jsonl` or `movies.csv` beside them is
the item table; conversations about other movies are dropped, as in Interplay (section 4). Without one the table is built
from the records' own columns.
"""

import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from interplay.corpora.annotators import MAX_WORDS, shorten
from interplay.corpora.assemble import Conversation, Loaded, Tools, assemble
from interplay.corpora.bundled import bundled_movies
from interplay.corpora.corpus import Counts
from interplay.corpora.endings import Wanted
from interplay.corpora.facts import TABLE_FILES, as_list, item_id_for, read_item_table, table_item
from interplay.corpora.files import need_files, wrong_record
from interplay.corpora.linking import TitleLinker
from interplay.corpora.messages import Spoken, write_titles
from interplay.errors import DataError
from interplay.store import read_json, read_json_lines
from interplay.titles import split_year, title_key
from interplay.types import DOMAINS, Catalog, Item, KnownItem, Role

_SPEAKER = re.compile(r"^\s*(Seeker|User|Recommender|Assistant)\s*:\s*", re.IGNORECASE)
_USERS = ("seeker", "user")
UNKNOWN_MOVIE = "movie not in the item table"
_log = logging.getLogger(__name__)


def load(source: Path, tools: Tools) -> Loaded:
    """The PEARL conversations in a directory; the removal rate is logged and can be had from `removal_rate`.

    Raises:
        DataError: no record file is there, or one is damaged or of another corpus.
    """
    counts = Counts()
    records = list(_read_records(source))
    counts.dialogues_read = len(records)
    table = read_item_table(source)
    own = _own_items(r for _, r in records)
    catalog = table if table is not None else (own if len(own) else bundled_movies())
    linker = TitleLinker(catalog)
    conversations = []
    for key, record in records:
        conversation = _conversation(key, record, catalog, linker)
        if conversation is None:
            # An empty turn of a conversation that goes anyway is not counted.
            counts.drop(UNKNOWN_MOVIE)
        else:
            conversations.append(conversation)
    loaded = assemble("pearl", conversations, catalog, tools, counts)
    rate = removal_rate(counts)
    if rate is not None:
        _log.info("pearl: %d of %d conversations removed (%.2f %%)", sum(counts.dropped.values()), len(records), 100 * rate)
    return loaded


def removal_rate(counts: Counts) -> float | None:
    """Share of the conversations read that were dropped, [0, 1]; None when nothing was read.

    Interplay reports 7.65 % for the same cleaning with the table of its authors (section 4).

    >>> removal_rate(Counts(dialogues_read=4, dialogues_kept=3, dropped={"no user turn": 1}))
    0.25
    """
    return None if counts.dialogues_read == 0 else sum(counts.dropped.values()) / counts.dialogues_read


def _read_records(source: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if not source.is_dir():
        need_files(source, "pearl", "*.jsonl", "*.json")
    tables = {name for table in TABLE_FILES for name in (table, f"{table}.gz")}
    paths = [
        p for p in sorted(source.iterdir()) if p.name not in tables and re.search(r"\.jsonl?(?:\.gz)?$", p.name) and p.is_file()
    ]
    if not paths:
        need_files(source, "pearl", "*.jsonl", "*.json")
    for path in paths:
        name = path.name.split(".")[0]
        for number, record in _rows(path):
            if not isinstance(record, dict) or "dialogue" not in record or "user_persona" not in record:
                raise wrong_record(path, number, "pearl", "an object with dialogue and user_persona", record)
            if not isinstance(record["dialogue"], list) or not isinstance(record["user_persona"], str):
                raise DataError(f"{path}, line {number}: not a pearl record: dialogue must be a list and user_persona a text")
            yield f"{name}-{record.get('data_id', number)}", record


def _rows(path: Path) -> Iterable[tuple[int, Any]]:
    if ".jsonl" in path.suffixes:
        return read_json_lines(path)
    value = read_json(path)
    rows = value.get("data") if isinstance(value, dict) else value
    if not isinstance(rows, list):
        raise wrong_record(path, 1, "pearl", "a list of records", value)
    return enumerate(rows, start=1)


def _own_items(records: Iterable[dict[str, Any]]) -> Catalog:
    """The movies that the records' own columns name."""
    items: dict[str, Item] = {}
    for record in records:
        if record.get("gt_movie_title"):
            row = {
                "title": record["gt_movie_title"],
                "genre": record.get("gt_genre"),
                "director": record.get("gt_director"),
                "cast": record.get("gt_cast"),
            }
            item = table_item(row)
            if item is not None:
                items[item.id] = item
        for name in (*_seen(record), *_retrieved(record)):
            title, year = split_year(name)
            if title_key(title):
                item_id = item_id_for(title, year)
                items.setdefault(item_id, Item(id=item_id, title=title, year=year))
    return Catalog(items.values(), DOMAINS["movie"])


def _seen(record: dict[str, Any]) -> list[str]:
    value = record.get("seen_movie_titles")
    return [str(v) for v in value] if isinstance(value, list) else as_list(value)


def _retrieved(record: dict[str, Any]) -> list[str]:
    out: list[str] = []
    for key, turn in record.items():
        if key.startswith("turn_") and isinstance(turn, dict) and isinstance(turn.get("retrieved_top3_titles"), list):
            out += [str(t) for t in turn["retrieved_top3_titles"]]
    return out


def _conversation(key: str, record: dict[str, Any], catalog: Catalog, linker: TitleLinker) -> Conversation | None:
    titles = [str(record["gt_movie_title"])] if record.get("gt_movie_title") else []
    seen = _seen(record)
    found = {name: catalog.find(name) for name in (*titles, *seen)}
    if any(item is None for item in found.values()):
        return None
    proposed = [i.id for n in (*titles, *seen, *_retrieved(record)) if (i := catalog.find(n)) is not None]
    messages, role = [], Role.USER
    for line in record["dialogue"]:
        source = str(line or "")
        match = _SPEAKER.match(source)
        if match:
            role = Role.USER if match.group(1).casefold() in _USERS else Role.RECOMMENDER
        text = source[match.end() :] if match else source
        written, mentions = write_titles(text, linker.find(text, proposed))
        messages.append(Spoken(role, written, mentions, (source,)))
    reviews = [" ".join(part.split()) for part in re.split(r"\n\s*\n", record["user_persona"]) if part.strip()]
    known = tuple(
        KnownItem(title=item.label, review=review, item_id=item.id)
        for name, review in zip(seen, reviews, strict=False)
        if (item := found[name]) is not None
    )
    target = found[titles[0]] if titles else None
    user = record.get("user_id")
    return Conversation(
        source_id=key,
        user_id=None if user is None else str(user),
        messages=messages,
        wanted=None if target is None else [Wanted(target.id)],
        lenient=target is None,
        known_items=known,
        general_preferences=_summary(reviews),
    )


def _summary(reviews: list[str]) -> str:
    """The opening sentence of each review, so that all three have a say within the limit."""
    share = MAX_WORDS // max(1, len(reviews))
    return " ".join(shorten(review, share) for review in reviews[:3]).strip()
