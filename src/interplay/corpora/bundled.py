"""The bundled catalog of well-known movies; its facts were written for this package."""

from functools import lru_cache
from importlib.resources import as_file, files

from interplay.corpora.attributes import decade, without_empty
from interplay.corpora.facts import item_id_for
from interplay.errors import DataError
from interplay.store import read_json_lines
from interplay.titles import title_key
from interplay.types import DOMAINS, Catalog, Item


@lru_cache(maxsize=1)
def bundled_movies() -> Catalog:
    """The movies of `bundled/movies_*.jsonl`, one per title and year.

    Ids look like "heat-1995"; attributes are genre, director, cast, theme, mood and decade ("1990s").

    Raises:
        DataError: the installed package is damaged.
    """
    items: dict[tuple[str, int | None], Item] = {}
    ids: set[str] = set()
    with as_file(files("interplay.corpora").joinpath("bundled")) as folder:
        paths = sorted(folder.glob("movies_*.jsonl"))
        if not paths:
            raise DataError(f"{folder} holds no movies_*.jsonl; install the package again")
        for path in paths:
            for number, row in read_json_lines(path):
                try:
                    key = (title_key(row["title"]), row["year"])
                    if key in items:
                        continue
                    item = Item(
                        id=item_id_for(row["title"], row["year"], ids),
                        title=row["title"],
                        year=row["year"],
                        attributes=without_empty(
                            {
                                "genre": row["genres"],
                                "director": row["director"],
                                "cast": row["cast"],
                                "theme": row["themes"],
                                "mood": row["mood"],
                                "decade": decade(row["year"]),
                            }
                        ),
                    )
                except (KeyError, TypeError) as error:
                    raise DataError(f"{path}, line {number}: not a movie ({type(error).__name__}: {error})") from None
                ids.add(item.id)
                items[key] = item
    return Catalog(items.values(), DOMAINS["movie"])
