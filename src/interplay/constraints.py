"""What a completion may be made of, token by token.

The protocol between the formats that know the rules and the backends that draw. Knows nothing of either.
"""

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt


class Allowed(NamedTuple):
    """Which ids may come next."""

    ids: npt.NDArray[np.int64]
    """Distinct ids. Not to be changed: the array may be shared."""
    only: bool
    """True: only `ids` may come next. False: every id may, but `ids`."""


class ConstraintState(Protocol):
    """How far one completion has got within its constraint."""

    def allowed(self) -> Allowed:
        """Which ids may come next; never none at all."""
        ...

    def advance(self, index: int) -> None:
        """Take in the id that was drawn."""
        ...


class Constraint(Protocol):
    """What a completion may look like, token by token. May be shared by requests; its states may not."""

    def start(self, max_new_tokens: int) -> ConstraintState:
        """The state before the first token of a completion that is cut off after `max_new_tokens`."""
        ...
