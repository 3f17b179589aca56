"""CRSArena-Dial (Bernard and Balog, 2025): people of two crowds talk to nine recommender systems and say how content they were.

Files: `crs_arena_dial_open.json` (anybody) and `crs_arena_dial_closed.json` (paid workers), plain or .gz: a list of
conversations in DialogueKit's form, with `metadata.sentiment` "satisfied" or "frustrated".

The users are people and the systems are not: it is a corpus to learn users from. Several of the systems write broken
sentences, which no recommender should learn for their own sake.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from interplay.corpora.assemble import Conversation, Loaded, Tools, assemble
from interplay.corpora.bundled import bundled_movies
from interplay.corpora.corpus import Counts
from interplay.corpora.encounters import ARENA_TALKS, system_key
from interplay.corpora.facts import movie_tables
from interplay.corpora.files import need_files, wrong_record
from interplay.corpora.linking import TitleLinker
from interplay.corpora.messages import Span, Spoken, write_titles
from interplay.errors import DataError
from interplay.store import read_json
from interplay.titles import title_key
from interplay.types import DOMAINS, Catalog, Item, Role

_ROLES = {"USER": Role.USER, "AGENT": Role.RECOMMENDER}
_NUMBER = re.compile(r"(?<!\S)(\d{1,2})(?:[:.)]\s+|\s{2,})(?=\S)")
"""Opens an entry of a list. The closed crowd's file has lost its colons, which leaves two blanks."""
_DESCRIPTION = re.compile(r"\s+[-–]\s+|\n")


def load(source: Path, tools: Tools) -> Loaded:
    """The conversations of both crowds.

    Raises:
        DataError: a file is missing or damaged.
    """
    return _load("crs-arena", tuple(ARENA_TALKS), source, tools)


def load_open(source: Path, tools: Tools) -> Loaded:
    """The conversations of the open crowd. Raises DataError as `load`."""
    return _load("crs-arena-open", ("open",), source, tools)


def load_closed(source: Path, tools: Tools) -> Loaded:
    """The conversations of the closed crowd. Raises DataError as `load`."""
    return _load("crs-arena-closed", ("closed",), source, tools)


def _load(name: str, crowds: tuple[str, ...], source: Path, tools: Tools) -> Loaded:
    counts = Counts()
    catalog = _catalog(source)
    linker = TitleLinker(catalog)
    conversations = []
    for crowd in crowds:
        (path,) = need_files(source, name, ARENA_TALKS[crowd])
        for number, record in _records(path, name):
            counts.dialogues_read += 1
            conversations.append(_conversation(record, path, number, catalog, linker, counts))
    return assemble(name, conversations, catalog, tools, counts)


def _records(path: Path, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    records = read_json(path)
    if not isinstance(records, list):
        raise DataError(f"{path}: not a list of conversations, so not a file of {name}")
    for number, record in enumerate(records, start=1):
        try:
            known = all(isinstance(record[side]["id"], str) for side in ("agent", "user")) and all(
                turn["participant"] in _ROLES and isinstance(turn["utterance"], str) for turn in record["conversation"]
            )
        except (KeyError, TypeError):
            known = False
        if not known:
            expected = "an object with agent.id, user.id and a conversation of participant (USER, AGENT) and utterance"
            raise wrong_record(path, number, name, expected, record)
        yield number, record


def _catalog(source: Path) -> Catalog:
    """The bundled movies, and those of the tables that no earlier one has, of whatever year."""
    items: dict[str, Item] = {item.id: item for item in bundled_movies()}
    titles = {title_key(item.title) for item in items.values()}
    for table in movie_tables(source, bundled_movies()):
        new = [item for item in table if title_key(item.title) not in titles and item.id not in items]
        items.update((item.id, item) for item in new)
        titles.update(title_key(item.title) for item in new)
    return Catalog(items.values(), DOMAINS["movie"])


def _conversation(
    record: dict[str, Any], path: Path, number: int, catalog: Catalog, linker: TitleLinker, counts: Counts
) -> Conversation:
    messages = []
    listed: dict[str, None] = {}
    for turn in record["conversation"]:
        role, text = _ROLES[turn["participant"]], turn["utterance"]
        if role is Role.USER:
            spans = [s for s in linker.find(text, listed) if text.startswith(s.item.label, s.start)]
        else:
            spans = _system_spans(text, listed, catalog, linker, counts)
            listed.update((s.item.id, None) for s in spans)
        written, mentions = write_titles(text, spans)
        messages.append(Spoken(role, written, mentions, (text,)))
    sentiment = (record.get("metadata") or {}).get("sentiment")
    return Conversation(
        source_id=str(record.get("conversation ID", f"{path.name.split('.')[0]}-{number}")),
        user_id=record["user"]["id"],
        messages=messages,
        wanted=[] if sentiment == "frustrated" else None,
        lenient=sentiment == "satisfied",
        open_end=sentiment != "frustrated",
        recommender=system_key(record["agent"]["id"]),
    )


def _system_spans(text: str, listed: dict[str, None], catalog: Catalog, linker: TitleLinker, counts: Counts) -> list[Span]:
    """The titles of a system's turn: the entries of its list, whatever they read like, and titles in its sentences."""
    spans: list[Span] = []
    for start, end in _entries(text):
        item = catalog.find(text[start:end])
        if item is None:
            counts.note("listed titles that no table of movies knows, left as words")
        else:
            spans.append(Span(start, end, item))
    found = linker.find(text, [*(s.item.id for s in spans), *listed])
    spans += [f for f in found if all(f.end <= s.start or s.end <= f.start for s in spans)]
    return sorted(spans, key=lambda span: span.start)


def _entries(text: str) -> Iterator[tuple[int, int]]:
    """Where the entries of a numbered list stand, each without its number and its description."""
    marks: list[re.Match[str]] = []
    for mark in _NUMBER.finditer(text):
        if int(mark.group(1)) == len(marks) + 1:
            marks.append(mark)
    if len(marks) < 2:
        return
    for mark, after in zip(marks, [*(m.start() for m in marks[1:]), len(text)], strict=True):
        ends = _DESCRIPTION.search(text, mark.end(), after)
        entry = text[mark.end() : ends.start() if ends else after].rstrip()
        if entry:
            yield mark.end(), mark.end() + len(entry)
