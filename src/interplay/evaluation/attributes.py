"""Which items of a catalog have which attributes (`metrics.matching` tells one spelling of each)."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from interplay.metrics.matching import attribute_key, attribute_keys
from interplay.types import Catalog

_NOTHING = np.zeros(0, np.intp)


class AttributeIndex:
    """Which items of a catalog have which attributes.

    Args:
        catalog: the items.
    """

    def __init__(self, catalog: Catalog) -> None:
        self.keys = {item.id: attribute_keys(item) for item in catalog}
        """Of each item, by id."""
        self.holders: dict[str, set[str]] = {}
        """Ids of the items that have an attribute, by its key."""
        for item_id, keys in self.keys.items():
            for key in keys:
                self.holders.setdefault(key, set()).add(item_id)

        self.row = {item_id: n for n, item_id in enumerate(self.keys)}
        """Place of each item in the catalog, by id."""
        self.rows = {key: np.array(sorted(self.row[item_id] for item_id in ids), np.intp) for key, ids in self.holders.items()}
        """Places of the items that have an attribute, by its key."""

    def num_held(self, keys: Iterable[str]) -> NDArray[np.intp]:
        """How many of some attributes each item has, shape (num_items,).

        Args:
            keys: of attributes; those that no item has count for none.
        """
        rows = [self.rows[key] for key in set(keys) if key in self.rows]
        return np.bincount(np.concatenate([_NOTHING, *rows]), minlength=len(self.keys))

    def known(self, attributes: Iterable[str]) -> frozenset[str]:
        """Keys of those attributes that some item of the catalog has; a phrase out of a review is not among them."""
        return frozenset(key for a in attributes if (key := attribute_key(a)) in self.holders)

    def overlap(self, item_ids: Iterable[str | None], attributes: Iterable[str]) -> float | None:
        """How much of what is looked for the best of some items has.

        Args:
            item_ids: what is on offer; None and unknown ids tell nothing.
            attributes: what is looked for.

        Returns:
            max over items of |has and wanted| / |wanted and known|, in [0, 1]; None where no item or no attribute is known.
        """
        wanted = self.known(attributes)
        shares = [len(wanted & self.keys[i]) / len(wanted) for i in item_ids if i in self.keys and wanted]
        return max(shares, default=None)
