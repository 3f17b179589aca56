"""Finding the files of a corpus in a directory, with one clear line when they are not there."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from interplay.errors import DataError
from interplay.store import read_lines


def find_files(source: Path, *names: str) -> list[Path]:
    """Those of the named files that a directory holds, plain or with ".gz", in the order named."""
    found = []
    for name in names:
        for path in (source / name, source / f"{name}.gz"):
            if path.is_file():
                found.append(path)
                break
    return found


def need_files(source: Path, corpus: str, *names: str) -> list[Path]:
    """As `find_files`, but at least one must be there.

    Raises:
        DataError: the directory is missing or holds none of them; the message says what it holds instead.
    """
    if source.is_file():
        raise DataError(f"{source} is a file; expected the directory of the {corpus} files ({', '.join(names)})")
    if not source.is_dir():
        raise DataError(
            f"{source} is not a directory; expected the {corpus} files ({', '.join(names)}). "
            "Give it with --source, or set INTERPLAY_DATA to the directory that holds one per corpus"
        )
    found = find_files(source, *names)
    if not found:
        there = sorted(p.name for p in source.iterdir())
        listed = ", ".join(there[:6]) + (", ..." if len(there) > 6 else "") if there else "nothing"
        raise DataError(f"{source} does not look like {corpus}: expected {' or '.join(names)} (plain or .gz), found {listed}")
    return found


def wrong_record(path: Path, number: int, corpus: str, expected: str, value: Any) -> DataError:
    """The error for a line of another shape than the corpus has."""
    if isinstance(value, dict):
        found = f"an object with the fields {', '.join(sorted(map(str, value))[:8]) or '(none)'}"
    elif isinstance(value, list):
        inner = f" of {type(value[0]).__name__}" if value else ""
        found = f"a list{inner}"
    else:
        found = f"{type(value).__name__} {str(value)[:40]!r}"
    return DataError(f"{path}, line {number}: not a {corpus} record: expected {expected}, found {found}")


def read_table(path: Path, corpus: str, needed: tuple[str, ...], *, delimiter: str) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a CSV (quoted) or TSV (never quoted) file with a header, with their line numbers.

    Raises:
        DataError: as `store.read_lines`; a needed column is missing; a row is cut short.
    """
    lines = read_lines(path)
    numbers: list[int] = []

    def texts() -> Iterator[str]:
        for number, line in lines:
            numbers[:] = [number]
            yield line

    if delimiter == "\t":
        reader = csv.reader(texts(), delimiter=delimiter, quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(texts(), delimiter=delimiter)
    try:
        header = next(reader, None)
        if header is None:
            raise DataError(f"{path} is empty; expected a table with the columns {', '.join(needed)}")
        missing = [c for c in needed if c not in header]
        if missing:
            raise DataError(
                f"{path}: not a {corpus} table: the columns {', '.join(missing)} are missing; found {', '.join(header)[:120]}"
            )
        for row in reader:
            if len(row) < len(header):
                raise DataError(
                    f"{path}, line {numbers[0]}: {len(row)} columns instead of {len(header)}; "
                    "the line may be cut: copy the file again or delete the line"
                )
            yield numbers[0], dict(zip(header, row, strict=False))
    except csv.Error as error:
        raise DataError(f"{path}, line {numbers[0] if numbers else 0}: not a sound table ({error})") from None
