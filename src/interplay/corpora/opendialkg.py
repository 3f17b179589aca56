"""OpenDialKG (Moon et al., ACL 2019): conversations of two writers over a knowledge graph; its movies and its books.

Two layouts. The official `opendialkg.csv` (a conversation per row, its `Messages` column a JSON list with the walks on the
graph). And the recommending turns `rec_turns_{train,valid,test}.jsonl` with `id2info.json` and `books_dialogues.jsonl`: the
splits of the former divide turns, so each movie dialogue is rebuilt from its longest context and stops right after its last
recommendation; the book dialogues are whole. Plain or .gz.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interplay.corpora.assemble import Conversation, Loaded, Tools, assemble
from interplay.corpora.attributes import decade, normal_genres, without_empty
from interplay.corpora.corpus import Counts
from interplay.corpora.facts import item_id_for
from interplay.corpora.files import find_files, need_files, read_table, wrong_record
from interplay.corpora.linking import TitleLinker
from interplay.corpora.messages import Spoken, write_titles
from interplay.errors import DataError
from interplay.store import read_json, read_json_lines
from interplay.titles import split_year
from interplay.types import DOMAINS, Catalog, Item, Role

LAST_MOVIE_DIALOGUE = 3268
"""Dialogue ids above are of books."""
TURN_FILES = ("rec_turns_train.jsonl", "rec_turns_valid.jsonl", "rec_turns_test.jsonl")
BOOK_FILE = "books_dialogues.jsonl"
OFFICIAL_FILE = "opendialkg.csv"


@dataclass(slots=True)
class _Log:
    key: str
    lines: list[tuple[Role, str]]
    names: list[str] = field(default_factory=list)
    """Titles that the source says are spoken of."""


def load_movies(source: Path, tools: Tools) -> Loaded:
    """The movie conversations of OpenDialKG. Raises DataError when no file of it is there, or one is damaged."""
    return _load("opendialkg-movies", "movie", source, tools)


def load_books(source: Path, tools: Tools) -> Loaded:
    """The book conversations of OpenDialKG. Raises DataError when no file of it is there, or one is damaged."""
    return _load("opendialkg-books", "book", source, tools)


def _load(name: str, domain: str, source: Path, tools: Tools) -> Loaded:
    counts = Counts()
    wanted_files = TURN_FILES if domain == "movie" else (BOOK_FILE, *TURN_FILES)
    paths = need_files(source, name, OFFICIAL_FILE, *wanted_files)
    if paths[0].name.startswith(OFFICIAL_FILE):
        logs, items = _read_official(paths[0], domain, counts)
    else:
        if domain == "book" and paths[0].name.startswith(BOOK_FILE):
            logs = list(_read_books(paths[0]))
        else:
            logs = list(_read_turns(paths, domain))
        named = {n for log in logs for n in log.names}
        items = _read_items(source, named, domain)
        counts.dialogues_read = len(logs)
    catalog = Catalog(items, DOMAINS[domain])
    linker = TitleLinker(catalog)
    return assemble(name, [_conversation(log, catalog, linker) for log in logs], catalog, tools, counts)


def _conversation(log: _Log, catalog: Catalog, linker: TitleLinker) -> Conversation:
    proposed = [i.id for n in dict.fromkeys(log.names) if (i := catalog.find(n)) is not None]
    messages = []
    for role, text in log.lines:
        written, mentions = write_titles(text, linker.find(text, proposed))
        messages.append(Spoken(role, written, mentions, (text,)))
    return Conversation(log.key, None, messages, lenient=True, open_end=True)


def _read_items(source: Path, named: set[str], domain: str) -> list[Item]:
    items: dict[str, Item] = {}
    known: set[str] = set()
    for path in find_files(source, "id2info.json"):
        value = read_json(path)
        if not isinstance(value, dict) or not all(isinstance(v, dict) and "name" in v for v in value.values()):
            raise DataError(f"{path}: not the OpenDialKG facts: expected a map of ids to objects with name")
        for item_id, info in value.items():
            # The table mixes both domains, and has people in it: books have no director, people have only actors.
            filmed = bool(info.get("director") or (info.get("actor") and info.get("genre")))
            written = bool(info.get("writer")) and not filmed
            if info["name"] in named or (filmed if domain == "movie" else written):
                item = _item(item_id, info["name"], str(info.get("year") or ""), info)
                items[item.id] = item
                known.add(info["name"])
    for title in sorted(named - known):
        item = _item(item_id_for(title, None, items), title, "", {})
        items[item.id] = item
    return list(items.values())


def _item(item_id: str, name: str, year: str, info: dict[str, Any]) -> Item:
    title, in_name = split_year(name)
    found = re.search(r"(?:1[5-9]|20)\d\d", year)
    number = int(found.group()) if found else in_name
    attributes = without_empty(
        {
            "genre": normal_genres(info.get("genre", ())),
            "director": info.get("director", ()),
            "cast": info.get("actor", ()),
            "writer": info.get("writer", ()),
            "decade": decade(number),
        }
    )
    return Item(id=item_id, title=title or name, year=number, attributes=attributes)


def _read_turns(paths: Iterable[Path], domain: str) -> Iterable[_Log]:
    longest: dict[int, tuple[list[str], str, int]] = {}
    names: dict[int, list[str]] = {}
    entities: dict[int, list[str]] = {}
    recommended: set[str] = set()
    fields = ("dialog_id", "turn_id", "context", "rec", "resp")
    for path in paths:
        if not path.name.startswith("rec_turns"):
            continue
        for number, row in read_json_lines(path):
            if not isinstance(row, dict) or any(f not in row for f in fields):
                raise wrong_record(path, number, "opendialkg", f"an object with {', '.join(fields)}", row)
            key = int(row["dialog_id"])
            if (key <= LAST_MOVIE_DIALOGUE) != (domain == "movie"):
                continue
            names.setdefault(key, []).extend(row["rec"])
            recommended.update(row["rec"])
            entities.setdefault(key, []).extend(row.get("entity") or ())
            if key not in longest or len(row["context"]) > len(longest[key][0]):
                longest[key] = (row["context"], row["resp"], row["turn_id"])
    for key, (context, reply, turn_id) in sorted(longest.items()):
        lines = [
            (Role.RECOMMENDER if (index - turn_id) % 2 == 0 else Role.USER, text)
            for index, text in enumerate([*context, reply])
        ]
        # Entities are also people and genres; what is recommended anywhere is an item.
        yield _Log(str(key), lines, [n for n in names[key] + entities.get(key, []) if n in recommended])


def _read_books(path: Path) -> Iterable[_Log]:
    for number, record in read_json_lines(path):
        if not isinstance(record, list) or not all(isinstance(t, dict) and {"role", "text", "item"} <= set(t) for t in record):
            raise wrong_record(path, number, "opendialkg-books", "a list of messages with role, text and item", record)
        lines = [(Role.USER if t["role"] == "user" else Role.RECOMMENDER, t["text"]) for t in record]
        yield _Log(f"book-{number}", lines, [n for t in record for n in t["item"]])


# Relations of the graph by what they say about which end.
_ABOUT_HEAD = {
    "starred_actors": "actor",
    "directed_by": "director",
    "written_by": "writer",
    "has_genre": "genre",
    "release_year": "year",
    "has_release_year": "year",
}
_FILM_FACTS = frozenset({"actor", "director"})


def _read_official(path: Path, domain: str, counts: Counts) -> tuple[list[_Log], list[Item]]:
    """The conversations of one domain in the official file, and their items with the facts that the walks pass."""
    rows: list[tuple[str, list[Any]]] = []
    facts: dict[str, dict[str, list[str]]] = {}
    for number, row in read_table(path, "opendialkg", ("Messages",), delimiter=","):
        try:
            messages = json.loads(row["Messages"])
        except json.JSONDecodeError as error:
            raise DataError(
                f"{path}, line {number}: the Messages column is not a whole JSON value ({error.msg}); copy the file again"
            ) from None
        if not isinstance(messages, list):
            raise wrong_record(path, number, "opendialkg", "a JSON list in the Messages column", messages)
        rows.append((f"row-{number}", messages))
        for head, relation, tail in _triples(messages):
            inverse = relation.startswith("~")
            kind = _ABOUT_HEAD.get(relation.lstrip("~").replace(" ", "_").casefold())
            if kind is not None:
                subject, value = (tail, head) if inverse else (head, tail)
                facts.setdefault(subject, {}).setdefault(kind, []).append(value)
    films = {name for name, about in facts.items() if _FILM_FACTS & set(about)}
    books = {name for name, about in facts.items() if "writer" in about} - films
    logs, used = [], set()
    for key, messages in rows:
        spoken_of = [n for t in _triples(messages) for n in (t[0], t[2]) if n in facts]
        num_films, num_books = (sum(n in names for n in spoken_of) for names in (films, books))
        counts.dialogues_read += 1
        if (num_films == 0 and num_books == 0) or (num_books > num_films) != (domain == "book"):
            counts.drop("of another domain")
            continue
        items = films if domain == "movie" else books
        names = [n for n in spoken_of if n in items]
        used.update(names)
        lines = [
            (Role.USER if m.get("sender") == "user" else Role.RECOMMENDER, m["message"])
            for m in messages
            if m.get("type") == "chat" and isinstance(m.get("message"), str)
        ]
        logs.append(_Log(key, lines, names))
    items_out: dict[str, Item] = {}
    for name in sorted(used):
        about = facts[name]
        title, in_name = split_year(name)
        year = about.get("year", [""])[0]
        item_id = item_id_for(title, in_name, items_out)
        items_out[item_id] = _item(item_id, name, year, about)
    return logs, list(items_out.values())


def _triples(messages: list[Any]) -> Iterable[tuple[str, str, str]]:
    for message in messages:
        walk = (message.get("metadata") or {}).get("path") if isinstance(message, dict) else None
        if isinstance(walk, list) and len(walk) > 1 and isinstance(walk[1], list):
            for triple in walk[1]:
                if isinstance(triple, list) and len(triple) == 3:
                    yield str(triple[0]), str(triple[1]), str(triple[2])
