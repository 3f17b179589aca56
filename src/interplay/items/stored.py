"""What a catalog or data directory holds: its items and where each comes from."""

from pathlib import Path

from interplay.errors import DataError, no_such_directory
from interplay.items.merge import Origin
from interplay.store import read_records
from interplay.types import Item

TO_MAKE_ONE = "Make one with: interplay items build --sources bundled --out DIR"


def read_items(path: Path) -> list[Item]:
    """The items of a catalog or data directory.

    Raises:
        DataError: there is no catalog.jsonl, or it is empty or damaged.
    """
    if not path.is_dir():
        raise no_such_directory(path, "a catalog or a data directory", TO_MAKE_ONE)
    file = path / "catalog.jsonl"
    if not file.is_file():
        raise DataError(f"{path} holds no catalog.jsonl, so it is neither a catalog nor a data directory. {TO_MAKE_ONE}")
    items = list(read_records(file, Item))
    if not items:
        raise DataError(f"{file} is empty: a catalog needs at least one item. {TO_MAKE_ONE}")
    return items


def read_origins(path: Path) -> dict[str, Origin]:
    """Where the items come from, by id; empty for a data directory. Raises DataError when the file is damaged."""
    file = path / "origins.jsonl"
    return {o.id: o for o in read_records(file, Origin)} if file.is_file() else {}
