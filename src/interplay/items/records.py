"""What a source says of one item, before anything is merged."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from interplay.items.names import name_key


@dataclass(slots=True, frozen=True)
class SourceRecord:
    """One row of one source."""

    source: str
    """Name of the source, for example "movielens"."""
    source_id: str
    """Its id there, distinct within the source."""
    title: str
    """Without the year, article in front."""
    year: int | None = None
    aliases: tuple[str, ...] = ()
    """Other titles of the same item."""
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    text: str = ""
    external: tuple[str, ...] = ()
    """Ids that several sources share, for example "imdb:0113277"."""
    other_ids: tuple[str, ...] = ()
    """Ids of catalogs that this item had before, when the record is itself an item of a catalog."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Name keys of title and aliases, the title's first."""
        return tuple(dict.fromkeys(name_key(t) for t in (self.title, *self.aliases)))
