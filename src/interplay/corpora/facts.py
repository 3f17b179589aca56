"""Attributes of movies for corpora that bring none: from the bundled catalog, and from tables beside the corpus.

Tables are read where they are: `movies.jsonl` or `movies.csv` in the corpus's own directory (title, year, genre, director,
cast), and a ReDial `movie_facts.jsonl` in a sibling directory `redial`.
"""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from interplay.corpora.attributes import decade, normal_genres, without_empty
from interplay.corpora.files import find_files, read_table, wrong_record
from interplay.errors import DataError
from interplay.store import read_json_lines
from interplay.titles import split_year, title_key
from interplay.types import DOMAINS, Catalog, Item

TABLE_FILES = ("movies.jsonl", "movies.csv")


def as_list(value: Any) -> list[str]:
    """A field of a table as a list of strings: a list, a JSON list, or text parted by "|", ";" or ",".

    >>> as_list("Crime, Drama"), as_list(["a"]), as_list(None)
    (['Crime', 'Drama'], ['a'], [])
    """
    if value is None:
        return []
    if isinstance(value, list | tuple):
        return [str(v).strip() for v in value if str(v).strip()]
    text = str(value).strip()
    if text.startswith("["):
        try:
            return as_list(json.loads(text))
        except json.JSONDecodeError:
            text = text.strip("[]").replace("'", "")
    return [part.strip() for part in re.split(r"[|;,]", text) if part.strip()]


def item_id_for(title: str, year: int | None, taken: Iterable[str] = ()) -> str:
    """A readable id, for example "heat-1995".

    Args:
        title: without the year.
        year: if known.
        taken: ids already given out; a number is added when the id is one of them.
    """
    base = re.sub(r"\s+", "-", title_key(title)) or "untitled"
    base = base if year is None else f"{base}-{year}"
    used, out, num = set(taken), base, 2
    while out in used:
        out, num = f"{base}-{num}", num + 1
    return out


def table_item(row: dict[str, Any], item_id: str | None = None) -> Item | None:
    """An item from a row with title (or name), and optionally year, genre(s), director, cast (or actors, stars)."""
    lower = {str(k).casefold(): v for k, v in row.items()}
    name = next((str(lower[k]) for k in ("title", "name", "movie_title") if lower.get(k)), "")
    title, year = split_year(name)
    given = str(lower.get("year") or "")
    found = re.search(r"(?:1[89]|20)\d\d", given)
    year = int(found.group()) if found else year
    if not title:
        return None

    def field(*names: str) -> list[str]:
        return next((as_list(lower[n]) for n in names if lower.get(n)), [])

    attributes = without_empty(
        {
            "genre": normal_genres(field("genre", "genres")),
            "director": field("director", "directors"),
            "cast": field("cast", "actors", "stars", "star"),
            "decade": decade(year),
        }
    )
    return Item(id=item_id or item_id_for(title, year), title=title, year=year, attributes=attributes)


def read_item_table(source: Path) -> Catalog | None:
    """The movie table in a corpus's own directory, or None when there is none.

    Raises:
        DataError: it is damaged or has no titles.
    """
    for path in find_files(source, *TABLE_FILES):
        items: dict[str, Item] = {}
        for number, row in _rows(path):
            if not isinstance(row, dict):
                raise wrong_record(path, number, "movie table", "an object with title", row)
            item = table_item(row)
            if item is None:
                raise DataError(f"{path}, line {number}: no title; expected a column title or name")
            items.setdefault(item.id, item)
        return Catalog(items.values(), DOMAINS["movie"])
    return None


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    if ".jsonl" in path.suffixes:
        return read_json_lines(path)
    return read_table(path, "movie table", (), delimiter=",")


def movie_tables(source: Path, bundled: Catalog) -> list[Catalog]:
    """The tables that movie facts are looked up in, best first."""
    tables = [t for t in (read_item_table(source),) if t is not None]
    tables.append(bundled)
    for path in find_files(source.parent / "redial", "movie_facts.jsonl"):
        items: dict[str, Item] = {}
        for _, row in read_json_lines(path):
            item = table_item(row)
            if item is not None:
                items.setdefault(item.id, item)
        tables.append(Catalog(items.values(), DOMAINS["movie"]))
    return tables


def with_facts(item: Item, tables: Iterable[Catalog]) -> Item:
    """The item with the attributes of the first table that knows a movie of this title and about this year."""
    for table in tables:
        known = table.find(item.label)
        if known is not None and "genre" in known.attributes:
            year = item.year or known.year
            return item.model_copy(update={"attributes": {**known.attributes, **without_empty({"decade": decade(year)})}})
    return item
