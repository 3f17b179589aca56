"""A token trie of titles: which ids may follow so that what is being written ends as a title of the catalog.

A title is the path of its ids exactly as `TokenFormat.encode_text` gives them, which is how training writes it, and then
the id of the closing tag; so a leaf is a title, and a title that another one begins with is told from it by its last
step. Nodes are numbered breadth first: the children of a node are neighbours, sorted by id, and "what may come next" is
a slice of one array.
"""

import hashlib
import logging
import tempfile
import zipfile
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from interplay.formats.tags import title_tags
from interplay.formats.tokens import TokenFormat
from interplay.store import cache_directory

_LAYOUT = 1
"""Part of the name of a cached trie; raised when an older file would be misread."""
_NEVER = np.int32(2**30)
"""The distance of a title where there is none."""

_log = logging.getLogger(__name__)


@dataclass(slots=True, frozen=True, eq=False)
class TitleTrie:
    """The titles of a catalog as paths of ids. Node 0 is the root."""

    token: npt.NDArray[np.int64]
    """Shape (num_nodes,): the id that leads to the node; -1 for the root. Ascending among the children of one node."""
    first: npt.NDArray[np.int64]
    """Shape (num_nodes + 1,): the children of node n are the nodes from `first[n]` to `first[n + 1]` (not included)."""
    leaves: npt.NDArray[np.int32]
    """Shape (num_nodes,): titles below the node."""
    shortest: npt.NDArray[np.int32]
    """Shape (num_nodes,): ids from here to the nearest end of a title, closing tag included; 0 at a leaf."""
    roomy: npt.NDArray[np.int32]
    """Shape (num_nodes,): with this many ids left every child can be followed to an end."""

    @classmethod
    def build(cls, rows: Iterable[Sequence[int]], closing: int) -> Self:
        """The trie of titles.

        Args:
            rows: the ids of each title, in any order; equal ones count once, empty ones not at all.
            closing: id of the closing tag.
        """
        paths = sorted({(*row, closing) for row in rows if row})
        lengths = np.fromiter(map(len, paths), dtype=np.int64, count=len(paths))
        begins = np.cumsum(lengths) - lengths
        flat = np.fromiter((i for path in paths for i in path), dtype=np.int64, count=int(lengths.sum()))
        node_of = np.zeros(len(paths), dtype=np.int64)
        tokens, parents = [np.array([-1])], [np.array([-1])]
        levels: list[slice] = []
        num_nodes, active = 1, np.arange(len(paths))
        # Level by level: the paths are sorted, so those that share a node are neighbours.
        for depth in range(int(lengths.max(initial=0))):
            active = active[lengths[active] > depth]
            token, parent = flat[begins[active] + depth], node_of[active]
            is_new = np.ones(len(active), dtype=bool)
            is_new[1:] = (token[1:] != token[:-1]) | (parent[1:] != parent[:-1])
            node_of[active] = num_nodes + np.cumsum(is_new) - 1
            tokens.append(token[is_new])
            parents.append(parent[is_new])
            levels.append(slice(num_nodes, num_nodes + int(is_new.sum())))
            num_nodes = levels[-1].stop
        parent = np.concatenate(parents)
        leaves = np.zeros(num_nodes, dtype=np.int32)
        leaves[node_of[: len(paths)]] = 1
        shortest = np.where(leaves == 1, np.int32(0), _NEVER)
        roomy = np.zeros(num_nodes, dtype=np.int32)
        for level in reversed(levels):
            np.add.at(leaves, parent[level], leaves[level])
            np.minimum.at(shortest, parent[level], shortest[level] + 1)
            np.maximum.at(roomy, parent[level], shortest[level] + 1)
        first = np.searchsorted(parent, np.arange(num_nodes + 1))
        return cls(np.concatenate(tokens).astype(np.int64), first, leaves, shortest, roomy)

    @property
    def num_titles(self) -> int:
        """Different titles."""
        return int(self.leaves[0])

    @property
    def num_bytes(self) -> int:
        """Memory of the arrays."""
        return sum(int(getattr(self, f.name).nbytes) for f in fields(self))

    def child(self, node: int, index: int) -> int | None:
        """The node that `index` leads to from `node`; None when no title goes on so."""
        begin, end = int(self.first[node]), int(self.first[node + 1])
        found = begin + int(self.token[begin:end].searchsorted(index))
        return found if found < end and self.token[found] == index else None

    def path(self, ids: Sequence[int]) -> list[int] | None:
        """The nodes of a title from the root to its leaf; None when there is no such title.

        Args:
            ids: of the title, closing tag included.
        """
        nodes = [0]
        for index in ids:
            node = self.child(nodes[-1], index)
            if node is None:
                return None
            nodes.append(node)
        return nodes if len(ids) and self.first[nodes[-1]] == self.first[nodes[-1] + 1] else None

    def save(self, path: Path) -> None:
        """Write the arrays to a file that appears only when it is whole.

        Raises:
            OSError: it can't be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        # A name of its own: several processes may build the same trie at once.
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".partial", delete=False) as file:
            partial = Path(file.name)
            try:
                np.savez(file, **{f.name: getattr(self, f.name) for f in fields(self)})
                file.close()
                partial.replace(path)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            OSError: there is no such file, or it can't be read.
            ValueError: it is damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:  # the archive's own checksums are verified here
                trie = cls(**{f.name: arrays[f.name] for f in fields(cls)})
        except (zipfile.BadZipFile, KeyError, EOFError, RuntimeError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is damaged ({error})") from None
        num_nodes = len(trie.token)
        if num_nodes == 0 or len(trie.first) != num_nodes + 1 or trie.first[0] != 1 or trie.first[-1] != num_nodes:
            raise ValueError(f"{path} is damaged (its arrays do not fit together)")
        return trie


class TitlesLeft:
    """A trie without some of its titles: a few corrections along their paths, the arrays stay as they are.

    Args:
        trie: of all titles.
        excluded: the paths of those to leave out (`TitleTrie.path`).
    """

    __slots__ = ("_distances", "_shortest", "trie")

    def __init__(self, trie: TitleTrie, excluded: Iterable[Sequence[int]] = ()) -> None:
        self.trie = trie
        self._shortest: dict[int, int] = {}
        self._distances: dict[int, npt.NDArray[np.int32]] = {}
        changed: dict[int, set[int]] = {}
        for path in excluded:
            self._shortest[path[-1]] = int(_NEVER)
            for node, child in pairwise(path):
                changed.setdefault(node, set()).add(child)
        # A child has a higher number than its parent, so this goes from the leaves to the root.
        for node in sorted(changed, reverse=True):
            begin, end = int(trie.first[node]), int(trie.first[node + 1])
            distances = trie.shortest[begin:end].copy()
            for child in changed[node]:
                distances[child - begin] = self._shortest[child]
            self._distances[node] = distances
            self._shortest[node] = min(int(distances.min()) + 1, int(_NEVER))

    def shortest(self, node: int) -> int:
        """Ids from `node` to the nearest end of a title that is left, closing tag included; huge where none is."""
        corrected = self._shortest.get(node)
        return int(self.trie.shortest[node]) if corrected is None else corrected

    def next_ids(self, node: int, room: int) -> npt.NDArray[np.int64]:
        """The ids after which a title can still be ended.

        Args:
            node: where the title has got to.
            room: ids that may still be written, closing tag included.
        """
        begin, end = int(self.trie.first[node]), int(self.trie.first[node + 1])
        tokens = self.trie.token[begin:end]
        distances = self._distances.get(node)
        if distances is not None:
            return tokens[distances < room]
        return tokens if room >= self.trie.roomy[node] else tokens[self.trie.shortest[begin:end] < room]


def load_trie(form: TokenFormat, titles: Collection[str], *, cache: Path | None = None) -> TitleTrie:
    """The trie of a catalog's titles, from the disk if it was built before.

    White space around a title is not part of it. Titles that a model can't write as such are left out: empty ones, and
    those that the tokenizer has no ids for.

    Args:
        form: tells the ids.
        titles: in any order, repeated or not.
        cache: directory of built tries; by default "titles" in `store.cache_directory()`. A file there that is damaged is
            made again; a directory that can't be written is done without.
    """
    wanted = sorted({title.strip() for title in titles} - {""})
    closing = form.tag_id(title_tags(form.domain)[1])
    digest = hashlib.sha256(f"{_LAYOUT} {closing} {len(wanted)}\n".encode())
    digest.update(form.tokenizer.backend_tokenizer.to_str().encode())
    for title in wanted:
        digest.update(b"\0" + title.encode())
    path = (cache or cache_directory() / "titles") / f"{digest.hexdigest()[:32]}.npz"
    try:
        return TitleTrie.load(path)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:
        _log.warning("building the titles again: %s", error)
    trie = TitleTrie.build(title_rows(form, wanted), closing)
    try:
        trie.save(path)
    except OSError as error:
        _log.warning("the titles are not cached: %s", error)
    return trie


def title_rows(form: TokenFormat, titles: Sequence[str]) -> list[list[int]]:
    """The ids of the titles that can be read back, in order; see `load_trie`."""
    rows = form.encode_texts(titles)
    special = form.reserved_ids
    texts = form.tokenizer.backend_tokenizer.decode_batch(rows, skip_special_tokens=False)
    return [row for row, text in zip(rows, texts, strict=True) if text.strip() and special.isdisjoint(row)]
