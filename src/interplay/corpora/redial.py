"""ReDial (Li et al., NeurIPS 2018): movie conversations of two crowd workers with forms about each movie.

Files: the official `train_data.jsonl` and `test_data.jsonl`, or the parts `train_sample.jsonl` and
`train_entity_annotated.jsonl` of the same conversations; beside them, optionally, `movie_facts.jsonl` (attributes) and
`movies_with_mentions.csv` (titles of all ids). Plain or .gz.
"""

import html
import re
from pathlib import Path
from typing import Any

from interplay.corpora.assemble import Conversation, Loaded, Tools, assemble
from interplay.corpora.attributes import decade, normal_genres, without_empty
from interplay.corpora.corpus import Counts
from interplay.corpora.endings import Wanted
from interplay.corpora.files import find_files, need_files, read_table, wrong_record
from interplay.corpora.messages import Span, Spoken, write_titles
from interplay.store import read_json_lines
from interplay.titles import split_year
from interplay.types import DOMAINS, Catalog, Item, Role

DIALOGUE_FILES = ("train_data.jsonl", "test_data.jsonl", "train_sample.jsonl", "train_entity_annotated.jsonl")
_FIELDS = ("conversationId", "messages", "movieMentions", "initiatorWorkerId", "respondentWorkerId")
_AT = re.compile(r"@(\d{4,})")


def load(source: Path, tools: Tools) -> Loaded:
    """The ReDial conversations in a directory; `initiator` is the user.

    Raises:
        DataError: no ReDial file is there, or one is damaged.
    """
    counts = Counts()
    records: dict[str, dict[str, Any]] = {}
    for path in need_files(source, "redial", *DIALOGUE_FILES):
        for number, record in read_json_lines(path):
            if not isinstance(record, dict) or any(f not in record for f in _FIELDS):
                raise wrong_record(path, number, "redial", f"an object with {', '.join(_FIELDS)}", record)
            key = str(record["conversationId"])
            # The same conversation in two files: the first file's, whose messages are unmerged, is kept.
            if key in records:
                counts.note("conversations present in two files, taken once")
            else:
                records[key] = record
    counts.dialogues_read = len(records)
    catalog = _catalog(source, records)
    return assemble("redial", [_conversation(k, r, catalog, counts) for k, r in records.items()], catalog, tools, counts)


def _catalog(source: Path, records: dict[str, dict[str, Any]]) -> Catalog:
    names: dict[str, str] = {}
    facts: dict[str, dict[str, Any]] = {}
    for path in find_files(source, "movies_with_mentions.csv"):
        for _, row in read_table(path, "redial", ("movieId", "movieName"), delimiter=","):
            names[row["movieId"]] = row["movieName"]
    for path in find_files(source, "movie_facts.jsonl"):
        for number, record in read_json_lines(path):
            if not isinstance(record, dict) or "movieId" not in record or "name" not in record:
                raise wrong_record(path, number, "redial movie_facts", "an object with movieId, name", record)
            facts[str(record["movieId"])] = record
            names.setdefault(str(record["movieId"]), record["name"])
    for conversation in records.values():
        for item_id, name in (conversation["movieMentions"] or {}).items():
            if name and name.strip():
                names.setdefault(item_id, name)
    items = []
    for item_id, name in names.items():
        title, year = split_year(html.unescape(name))
        fact = facts.get(item_id, {})
        attributes = without_empty(
            {
                "genre": normal_genres(fact.get("genre", ())),
                "director": fact.get("director", ()),
                "cast": fact.get("star", ()),
                "writer": fact.get("writer", ()),
                "decade": decade(year),
            }
        )
        if title:
            items.append(Item(id=item_id, title=title, year=year, attributes=attributes))
    return Catalog(items, DOMAINS["movie"])


def _conversation(key: str, record: dict[str, Any], catalog: Catalog, counts: Counts) -> Conversation:
    user = record["initiatorWorkerId"]
    messages = []
    for message in record["messages"]:
        role = Role.USER if message["senderWorkerId"] == user else Role.RECOMMENDER
        messages.append(_message(role, message["text"], catalog, counts))
    form = _form(record)
    if form is None:
        counts.note("conversations without a form")
    return Conversation(
        source_id=key,
        user_id=str(user),
        recommender_id=str(record["respondentWorkerId"]),
        messages=messages,
        wanted=None if form is None else _wanted(form, messages),
        opinions={} if form is None else {i: a["liked"] == 1 for i, a in form.items() if a.get("liked") in (0, 1)},
    )


def _message(role: Role, source: str, catalog: Catalog, counts: Counts) -> Spoken:
    text = html.unescape(source)
    spans = []
    for match in _AT.finditer(text):
        item = catalog.get(match.group(1))
        if item is None:
            counts.note("@ids without a title, left as they are")
        else:
            spans.append(Span(match.start(), match.end(), item))
    written, mentions = write_titles(text, spans)
    return Spoken(role, written, mentions, (source,))


def _form(record: dict[str, Any]) -> dict[str, dict[str, int]] | None:
    """The seeker's answers, else the recommender's; an unfilled form is an empty list. None when neither is filled."""
    for name in ("initiatorQuestions", "respondentQuestions"):
        form = record.get(name)
        if isinstance(form, dict) and form:
            return form
    return None


def _wanted(form: dict[str, dict[str, int]], messages: list[Spoken]) -> list[Wanted]:
    """Suggested and liked movies: those not seen before first, in each case the one named last by the recommender first.

    A movie that the user liked but has seen is no acceptance by itself, only where a turn is tagged so.
    """
    named = [m.item_id for s in messages if s.role is Role.RECOMMENDER for m in s.mentions if m.item_id is not None]
    last_named = {item_id: at for at, item_id in enumerate(named)}
    liked = [i for i, a in form.items() if a.get("suggested") == 1 and a.get("liked") == 1 and i in last_named]
    rank = {0: 0, 2: 1, 1: 2}
    liked.sort(key=lambda i: (rank.get(form[i].get("seen", 2), 1), -last_named[i]))
    return [Wanted(i, sure=form[i].get("seen") != 1) for i in liked]
