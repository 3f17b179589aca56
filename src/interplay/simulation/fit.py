"""What a user knows of what it is offered: whether an item has what it looks for, by the catalog.

People know films. A model of a million parameters that was trained on a few thousand conversations knows none, and a log
names a film without saying what it is; so such a user cannot tell a thriller from a comedy, and accepts by the clock
(docs/results.md).
This cue tells it, before each of its turns, what somebody who knows the item would know. It is made of what the user's own View
holds, its target attributes and the titles that it heard, and of the catalog's facts of those; nothing of the hidden target.
"""

from collections.abc import Sequence

from interplay.metrics.matching import attribute_key, attribute_keys
from interplay.types import FIT, Catalog, Parts, Role, Turn, View

ALL, SOME, NONE = "all", "some", "none"
"""How much of what is looked for the best item on offer has."""


def fit_text(catalog: Catalog, wanted: Sequence[str], turns: Sequence[Turn]) -> str | None:
    """Whether what is on offer has all, some or none of what is looked for.

    On offer are the items of the recommender's latest turn that names any; the one that has most counts.

    Args:
        catalog: what is known of items.
        wanted: the target attributes.
        turns: what was said so far.

    Returns:
        ALL, SOME or NONE; None where nothing is looked for or on offer, or nothing is known of what is.
    """
    latest = next((turn for turn in reversed(turns) if turn.role is Role.RECOMMENDER and turn.items), None)
    if latest is None or not wanted:
        return None
    items = [item for mention in latest.items if (item := catalog.get(mention.item_id)) is not None and item.attributes]
    if not items:
        return None
    keys = {attribute_key(attribute) for attribute in wanted}
    most = max(len(keys & attribute_keys(item)) for item in items)
    return ALL if most == len(keys) else SOME if most else NONE


class FitCues:
    """Tells a user before each turn whether what is on offer fits (`cues.CueSource`).

    Args:
        catalog: what is talked about.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def traits(self, view: View, seed: int) -> Parts:
        """None: what is on offer changes."""
        del view, seed
        return ()

    def parts(self, view: View, seed: int) -> Parts:
        """Of what was offered last."""
        del seed
        text = fit_text(self._catalog, view.target_attributes, view.turns)
        return () if text is None else ((FIT, text),)
