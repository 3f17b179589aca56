"""When a named title is the item that was asked for (by catalog id, else by spelling and year), and an attribute another."""

from collections.abc import Iterable
from functools import lru_cache

from interplay.titles import split_year, title_key
from interplay.types import Item, Target

YEAR_TOLERANCE = 2
"""Years that two spellings of one title may differ by (release years differ between databases; remakes by more)."""


def is_target(title: str, item_id: str | None, target: Target, year_tolerance: int = YEAR_TOLERANCE) -> bool:
    """Whether a mention means the target: one id, or one spelling and years that do not contradict each other.

    Args:
        title: as written, with or without its year.
        item_id: the catalog item the mention was linked to, if any.
        target: the item asked for.
        year_tolerance: years that may lie between the two when both are written; an unwritten year agrees with any.

    >>> heat = Target(item_id="m1", title="Heat (1995)")
    >>> is_target("the heat", None, heat), is_target("Heat (1986)", "m2", heat), is_target("anything", "m1", heat)
    (True, False, True)
    """
    if item_id is not None and item_id == target.item_id:
        return True
    key = title_key(title)
    if not key or key != title_key(target.title):
        return False
    written, wanted = split_year(title)[1], split_year(target.title)[1]
    return written is None or wanted is None or abs(written - wanted) <= year_tolerance


def is_any_target(title: str, item_id: str | None, targets: Iterable[Target]) -> bool:
    """Whether a mention means one of the targets: see `is_target`."""
    return any(is_target(title, item_id, target) for target in targets)


@lru_cache(maxsize=100_000)
def attribute_key(attribute: str) -> str:
    """The form in which attributes compare equal, as titles do."""
    return title_key(attribute)


def attribute_keys(item: Item) -> frozenset[str]:
    """The item's attribute values and its decade ("1990s"), as keys.

    >>> sorted(attribute_keys(Item(id="m1", title="Heat", year=1995, attributes={"genre": ("Crime",)})))
    ['1990s', 'crime']
    """
    keys = {attribute_key(value) for values in item.attributes.values() for value in values}
    return frozenset(keys | ({f"{item.year // 10 * 10}s"} if item.year is not None else set()))
