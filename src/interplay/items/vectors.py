"""Item vectors on disk: where items lie that the same people like. The embedding that a Match Score is the cosine of.

DIR/vectors.npz    vectors (num_items, dim), popularity (num_items,): rows in the order of the catalog
DIR/vectors.json   the card: digest of the catalog, how the vectors were made, what was read; written last
"""

import json
import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from interplay.errors import DataError, no_such_directory
from interplay.items.bpr import Bpr, HeadTraining, cached_bpr
from interplay.items.catalogs import BuiltCatalog
from interplay.items.encoders import TFIDF, Floats, encode_items, unit_rows
from interplay.items.ratings import Ratings
from interplay.store import read_json, write_lines
from interplay.types import Catalog, Item

MARKER = "vectors.json"
TO_MAKE_THEM = "Make them with: interplay items train --catalog CATALOG --ratings movielens:PATH --out DIR"


@dataclass(frozen=True)
class ItemVectors:
    """Vectors of the items of one catalog."""

    vectors: Floats
    """Shape (num_items, dim), in the catalog's order."""
    popularity: NDArray[np.int64]
    """How many users like each item, shape (num_items,)."""
    card: Mapping[str, Any]
    """How they were made; "catalog" is the digest of the catalog they belong to."""

    @cached_property
    def unit(self) -> Floats:
        """The vectors at length 1, so that a product is a cosine; rows of zeros, of which nothing is known, stay zeros."""
        return unit_rows(self.vectors)

    def write(self, path: Path) -> None:
        """Write the files into an existing directory.

        Raises:
            RunError: the card can't be written.
        """
        partial = path / f"vectors.npz.{os.getpid()}"
        with partial.open("wb") as file:
            np.savez(file, vectors=self.vectors, popularity=self.popularity)
        partial.replace(path / "vectors.npz")
        write_lines(path / MARKER, [json.dumps(dict(self.card), indent=1, ensure_ascii=False)])

    @classmethod
    def read(cls, path: Path, catalog: Catalog) -> Self:
        """Read vectors that `write` wrote.

        Raises:
            DataError: there are none, they are damaged, or they belong to another catalog.
        """
        if not path.is_dir():
            raise no_such_directory(path, "item vectors", TO_MAKE_THEM)
        if not (path / MARKER).is_file():
            raise DataError(f"{path} holds no {MARKER}, so there are no item vectors in it. {TO_MAKE_THEM}")
        card = read_json(path / MARKER)
        if card.get("catalog") != catalog.digest:
            raise DataError(
                f"{path} holds vectors of another catalog (digest {card.get('catalog')}, {card.get('items')} items; this one: "
                f"{catalog.digest}, {len(catalog)} items); make them for this one: interplay items train --data THIS ..."
            )
        try:
            with np.load(path / "vectors.npz", allow_pickle=False) as arrays:
                found = cls(arrays["vectors"], arrays["popularity"], card)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            raise DataError(f"{path / 'vectors.npz'} is missing or damaged. {TO_MAKE_THEM}") from None
        if found.vectors.ndim != 2 or not len(found.vectors) == len(found.popularity) == len(catalog):
            raise DataError(f"{path / 'vectors.npz'} has not one row for each of the {len(catalog)} items. {TO_MAKE_THEM}")
        return found


@dataclass(slots=True, frozen=True)
class Rows:
    """The items that are encoded, and which of them the catalog's are."""

    items: tuple[Item, ...]
    """Those of the catalog that is rated, in order; then those that only the other one has."""
    of_target: NDArray[np.int64]
    """For each item of the catalog that gets vectors, its place in `items`."""
    num_known: int
    """Items of it that the rated catalog knows."""


def rows_for(built: BuiltCatalog, target: Catalog | None = None, known: Mapping[str, Item] | None = None) -> Rows:
    """Which items are to be encoded so that `target` gets its vectors.

    Args:
        built: the catalog that is rated.
        target: the catalog that gets vectors; None: `built` itself.
        known: ids of `target` to items of `built`; the others are encoded as `target` has them.
    """
    items = list(built.catalog)
    if target is None:
        return Rows(tuple(items), np.arange(len(items)), len(items))
    known = known or {}
    place = {item.id: n for n, item in enumerate(items)}
    rows = []
    for item in target:
        if item.id in known:
            rows.append(place[known[item.id].id])
        else:
            rows.append(len(items))
            items.append(item)
    return Rows(tuple(items), np.array(rows, np.int64), sum(i.id in known for i in target))


def fit_vectors(
    built: BuiltCatalog,
    ratings: Ratings,
    *,
    target: Catalog | None = None,
    known: Mapping[str, Item] | None = None,
    encoder: str = TFIDF,
    how: HeadTraining | None = None,
    seed: int = 0,
    cache: Path | None = None,
    on_epoch: Callable[[int, float], None] | None = None,
) -> ItemVectors:
    """Item vectors from texts and ratings; equal inputs give equal vectors.

    Args:
        built: the catalog that is rated.
        ratings: of its items.
        target: see `rows_for`.
        known: see `rows_for`.
        encoder: see `encoders.encode_items`.
        how: settings of the training.
        seed: of the encoder and the training.
        cache: see `encoders.encode_items`.
        on_epoch: see `bpr.train_bpr`.

    Raises:
        CheckpointError: no such encoder at hand.
        MissingExtra: an encoder without sentence-transformers.
    """
    how = how or HeadTraining()
    rows = rows_for(built, target, known)
    text = encode_items(rows.items, encoder, seed=seed, cache=cache)
    found: Bpr = cached_bpr(text, ratings, how, seed=seed, cache=cache, on_epoch=on_epoch)
    catalog = built.catalog if target is None else target
    popularity = ratings.popularity(len(rows.items))[rows.of_target]
    card = {
        "catalog": catalog.digest,
        "items": len(catalog),
        "known_to_rated_catalog": rows.num_known,
        "liked_items": int((popularity > 0).sum()),
        "rated_catalog": built.catalog.digest,
        "encoder": encoder,
        "text_dim": text.shape[1],
        "training": how.record(),
        "seed": seed,
        "ratings": dict(ratings.card),
    }
    return ItemVectors(np.ascontiguousarray(found.vectors[rows.of_target]), popularity, card)
