"""Where a logged conversation ends in our terms: at the user's acceptance, or at the turn where the user gives up.

In simulation the user's `accept` or `give-up` is the last turn. A log goes on with thanks and small talk, takes back an
acceptance, or stops in the middle; here it is cut to the same form.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from interplay.corpora.messages import Spoken
from interplay.corpora.tagger import has_seen, has_thanks, is_acceptance, is_rejection
from interplay.titles import title_key
from interplay.types import Action, Ending, Role


@dataclass(slots=True, frozen=True)
class Wanted:
    """An item that may have been accepted."""

    item_id: str
    sure: bool = True
    """Whether the corpus says so; else it counts only when a turn is tagged `accept`."""


@dataclass(slots=True, frozen=True)
class Closed:
    """A conversation cut to its end."""

    turns: list[Spoken]
    actions: list[Action]
    ending: Ending | None
    target: str | None
    """Id of the accepted item; for an open end, of the last recommended one."""
    num_cut: int
    """Turns cut off after the end."""


def close(
    turns: Sequence[Spoken],
    actions: Sequence[Action],
    wanted: Sequence[Wanted] | None,
    *,
    lenient: bool = False,
    open_end: bool = False,
) -> Closed:
    """Cut a conversation at its end.

    Args:
        turns: merged turns, speakers alternating.
        actions: their tagged actions.
        wanted: what may have been accepted, best first; None to infer it from the turns tagged `accept`.
        lenient: without a tagged acceptance, take a last user turn that follows a recommendation and neither asks, nor turns
            it down, nor knows it already, as one.
        open_end: logs of this corpus stop anywhere; without an acceptance, the end counts as giving up only where the user's
            last words neither ask for something nor take something up, and the recommender did not recommend after them.
    """
    for want in inferred(turns, actions) if wanted is None else wanted:
        for index in acceptances(turns, actions, want):
            return _cut(turns, actions, index, action=Action.ACCEPT, ending=Ending.ACCEPTED, target=want.item_id)
    if lenient:
        index = _last_user(turns)
        text = turns[index].text
        asks = index < 1 or actions[index] in (Action.INQUIRE, Action.DISCLOSE_GOAL)
        calm = not asks and "?" not in text and not (is_rejection(text) or has_seen(text))
        if index > 0 and (calm or is_acceptance(text)):
            for item_id in reversed(_offer_before(turns, index)):
                if item_id in _offered_first(turns) and _accepts(turns, index, item_id):
                    return _cut(turns, actions, index, action=Action.ACCEPT, ending=Ending.ACCEPTED, target=item_id)
    if open_end and _stops_midway(turns, actions):
        offers = [m.item_id for m in turns[-1].mentions if m.item_id in _offered_first(turns)]
        linked = offers if turns[-1].role is Role.RECOMMENDER else []
        kept: list[Action] = [Action.FEEDBACK if a is Action.ACCEPT else a for a in actions]
        return Closed(list(turns), kept, None, linked[-1] if linked else None, 0)
    return _cut(turns, actions, _last_user(turns), action=Action.GIVE_UP, ending=Ending.GAVE_UP, target=None)


def inferred(turns: Sequence[Spoken], actions: Sequence[Action]) -> list[Wanted]:
    """What the turns tagged `accept` take, the last first."""
    found: dict[str, Wanted] = {}
    for index in range(len(turns) - 1, 0, -1):
        if turns[index].role is Role.USER and actions[index] is Action.ACCEPT:
            for item_id in reversed(_offer_before(turns, index)):
                if item_id in _offered_first(turns) and _accepts(turns, index, item_id):
                    found.setdefault(item_id, Wanted(item_id, sure=False))
    return list(found.values())


def acceptances(turns: Sequence[Spoken], actions: Sequence[Action], want: Wanted) -> Iterator[int]:
    """The user turns that can be the acceptance of an item, best first.

    After each naming of the item by the recommender, the last first, and before another item is named: the first turn
    tagged `accept`. Then, where the corpus is sure of the item: the last turn with thanks, and the turn right after.
    """
    named = [i for i, t in enumerate(turns) if t.role is Role.RECOMMENDER and want.item_id in t.things]
    for at in reversed(named):
        for index in _window(turns, at, want.item_id):
            if actions[index] is Action.ACCEPT and _accepts(turns, index, want.item_id):
                yield index
    if want.sure:
        for at in reversed(named):
            window = list(_window(turns, at, want.item_id))
            calm = [i for i in window if actions[i] is not Action.INQUIRE and not is_rejection(turns[i].text)]
            thanks = [i for i in calm if has_thanks(turns[i].text)]
            for index in [*thanks[-1:], *calm[:1], *window[:1]]:
                if _accepts(turns, index, want.item_id):
                    yield index


def _window(turns: Sequence[Spoken], at: int, item_id: str) -> Iterator[int]:
    for index in range(at + 1, len(turns)):
        turn = turns[index]
        if turn.role is Role.RECOMMENDER and turn.mentions and item_id not in turn.things:
            return
        if turn.role is Role.USER:
            yield index


def _accepts(turns: Sequence[Spoken], index: int, item_id: str) -> bool:
    """Whether `types.accepted_mentions` would give the item, were this turn the last and an `accept`."""
    offered: dict[str, str | None] = {}
    latest: list[str | None] = []
    for turn in turns[:index]:
        if turn.role is Role.RECOMMENDER and turn.mentions:
            latest = [m.item_id for m in turn.mentions]
            offered.update(zip((title_key(t) for t in turn.titles), latest, strict=True))
    named = [offered[key] for t in turns[index].titles if (key := title_key(t)) in offered]
    return item_id in (named or latest)


def _offer_before(turns: Sequence[Spoken], index: int) -> list[str]:
    """Ids of the items in the recommender's latest turn with any, then those of them that the user's turn names."""
    for turn in reversed(turns[:index]):
        if turn.role is Role.RECOMMENDER and turn.mentions:
            items = [m.item_id for m in turn.mentions if m.item_id is not None]
            earlier = {m.item_id for t in turns[:index] if t.role is Role.RECOMMENDER for m in t.mentions}
            named = [m.item_id for m in turns[index].mentions if m.item_id is not None and m.item_id in earlier]
            return items + named
    return []


def _stops_midway(turns: Sequence[Spoken], actions: Sequence[Action]) -> bool:
    index = _last_user(turns)
    if index < 0 or Action.RECOMMEND in actions[index + 1 :]:
        return True
    text = turns[index].text
    return actions[index] in (Action.INQUIRE, Action.DISCLOSE_GOAL) or "?" in text or is_acceptance(text)


def _offered_first(turns: Sequence[Spoken]) -> set[str]:
    """Ids of the items that the recommender names before the user does."""
    by: dict[str, Role] = {}
    for turn in turns:
        for thing in turn.things:
            by.setdefault(thing, turn.role)
    return {thing for thing, role in by.items() if role is Role.RECOMMENDER}


def _last_user(turns: Sequence[Spoken]) -> int:
    return max((i for i, t in enumerate(turns) if t.role is Role.USER), default=-1)


def _cut(
    turns: Sequence[Spoken], actions: Sequence[Action], last: int, *, action: Action, ending: Ending, target: str | None
) -> Closed:
    kept: list[Action] = [Action.FEEDBACK if a is Action.ACCEPT else a for a in actions[: last + 1]]
    if kept:
        kept[-1] = action
    return Closed(list(turns[: last + 1]), kept, ending, target, len(turns) - last - 1)
