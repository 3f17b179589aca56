"""What a user simulator is trained on beside its next turn, as rows that are mixed with those of `rows`.

    feedback     history, lists of titles             -> accept the gold item, or say what the list lacks     (SMTPO, task 1)
    attributes   history                              -> the attributes of the gold item                      (SMTPO, task 2)
    target       history, titles to choose from       -> the gold item's title                                (SMTPO, task 3)
    flipped      history, once for each turn          -> that turn alone; at the very end: the end token      (UserLM)

Sources: SMTPO (arXiv 2604.03671) names the first three and their order; what their rows look like is ours. UserLM (arXiv
2510.06552) turns a talk with K user turns into K + 1 samples, the last of which is the end of the conversation.

The history is the user's ordinary View up to a turn of the recommender, before anybody has named the gold item. The first
three tasks are opened by a tag of their own, which no View is rendered with; the flipped samples are ordinary next turns, so
their only tag is the end token. The gold item is looked at here and nowhere else: it is in the labels of training rows (and,
by its title, among the titles that are shown), and no path leads from it into a View.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, cycle, islice

from interplay.config import UserTasks
from interplay.corpora.attributes import speaks_of
from interplay.corpora.corpus import Corpus
from interplay.errors import ConfigError, DataError
from interplay.formats.tags import END_OF_TURN, RESPONSE_OPEN, TASK_TAGS, title_tags
from interplay.formats.tokens import IGNORED, TokenFormat
from interplay.metrics.matching import is_any_target
from interplay.simulation.facets import KINDS, Facet, by_kind, facets_of
from interplay.simulation.wording import TITLE, join, list_of, load_wording, make_turn, tidy
from interplay.titles import names_title, title_key
from interplay.types import Action, Catalog, Dialogue, Item, Role, Scenario, Split, Target, Turn, View, derive_seed, view_of

NEXT_TURN = "next_turn"
MOST_PER_KIND = 3
"""Values of one kind that are looked at: of a cast, those billed first."""
MOST_DRAWS = 30
"""Draws of one title, or of one row of a conversation, before it is given up."""
_UNASKED = frozenset({"writer"})
"""Kinds that users do not ask for; there are no words for them either."""

Row = dict[str, list[int]]


@dataclass(slots=True)
class TaskCounts:
    """What the mixture holds, by task, and what it left out."""

    rows: dict[str, int] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    labelled_tokens: dict[str, int] = field(default_factory=dict)
    conversations: int = 0
    """With a gold item that the catalog knows."""
    skipped: dict[str, int] = field(default_factory=dict)
    """Conversations that the tasks about a gold item can't use, by reason."""
    too_long: dict[str, int] = field(default_factory=dict)
    """Draws (flipped: samples) that did not fit into `max_length`, by task."""
    lists: int = 0
    """Lists of the feedback task."""
    gold_listed: int = 0
    """Of these, lists that hold a gold item."""
    from_log: int = 0
    """Lists that are the log's own, with the person's own answer."""
    no_difference: int = 0
    """Rejections that name no attribute, since none is known in which the list differs from the gold item."""

    @property
    def shares(self) -> dict[str, float]:
        """Share of the rows by task; they sum to 1."""
        total = sum(self.rows.values())
        return {task: num / total for task, num in self.rows.items()}

    def record(self) -> dict[str, object]:
        """For the summary of a training."""
        return {
            "rows": self.rows,
            "shares": {task: round(share, 4) for task, share in self.shares.items()},
            "tokens": self.tokens,
            "labelled_tokens": self.labelled_tokens,
            "conversations_with_gold": self.conversations,
            "skipped": self.skipped,
            "too_long": self.too_long,
            "lists": self.lists,
            "gold_listed": self.gold_listed,
            "from_log": self.from_log,
            "no_difference": self.no_difference,
        }


def trained_tasks(tasks: UserTasks, role: str) -> tuple[str, ...]:
    """The tasks that are trained beside the next turn, in the order of their tags.

    Raises:
        ConfigError: every weight is 0, or the role is not the user.
    """
    trained = tuple(task for task in TASK_TAGS if getattr(tasks, task) > 0)
    if role != "user" and (trained or tasks != UserTasks()):
        raise ConfigError(f"--tasks are those of a user simulator, not of a {role}; leave them out")
    if not trained and not tasks.next_turn:
        raise ConfigError(f"every task has weight 0; give one of {NEXT_TURN}, {', '.join(TASK_TAGS)} a weight above 0")
    return trained


@dataclass(frozen=True)
class Gold:
    """A conversation of which the gold item is known."""

    scenario: Scenario
    dialogue: Dialogue
    item: Item
    catalog: Catalog

    def view(self, cut: int) -> View:
        """What the user sees before the turn number `cut`."""
        return view_of(self.scenario, Role.USER, with_persona=True).after(*self.dialogue.turns[:cut])

    @cached_property
    def cuts(self) -> list[int]:
        """Turns of the recommender before which nobody has named a gold item; the beginning where there are none."""
        out = []
        for place, turn in enumerate(self.dialogue.turns):
            if turn.role is Role.RECOMMENDER:
                out.append(place)
            if _names_target(turn, self.scenario.targets):
                break
        return out or [0]


def _names_target(turn: Turn, targets: Sequence[Target]) -> bool:
    linked = any(is_any_target(t, m.item_id, targets) for t, m in zip(turn.titles, turn.items, strict=True))
    return linked or any(names_title(turn.text, target.title) for target in targets)


def gold_conversations(corpora: Iterable[Corpus], split: Split, counts: TaskCounts) -> list[Gold]:
    """The conversations of a split whose gold item is known; the others are counted in `counts.skipped`."""
    out = []
    for corpus in corpora:
        for scenario, dialogue in corpus.pairs(split):
            items = [item for target in scenario.targets if (item := corpus.catalog.get(target.item_id)) is not None]
            if items:
                out.append(Gold(scenario, dialogue, items[0], corpus.catalog))
                continue
            reason = "gold item not in the catalog" if scenario.targets else "no gold item"
            counts.skipped[reason] = counts.skipped.get(reason, 0) + 1
    counts.conversations = len(out)
    return out


class RowMaker:
    """Makes the rows of each task.

    Args:
        form: the rendering, with the tags of the tasks.
        tasks: how lists are drawn.
        golds: the conversations; what is shown beside a gold item are the gold items of others, each as often as it is one.
            So a title by itself tells nothing about whether it is to be accepted: only what the View says does.
        counts: counts what the lists hold.
    """

    def __init__(self, form: TokenFormat, tasks: UserTasks, golds: Sequence[Gold], counts: TaskCounts) -> None:
        self.form = form
        self.tasks = tasks
        self.counts = counts
        pool = [gold.item for gold in golds]
        if len({item.id for item in pool}) < 2:
            pool = list(chain.from_iterable(gold.catalog for gold in golds[:1]))
        self._pool = pool

    # ---- rows --------------------------------------------------------------------------------------------------------

    def feedback(self, gold: Gold, rng: random.Random) -> Row | None:
        """A row of the feedback task: history, tag, then lists and the answers to them, which are learned.

        Answers are part of the history of the next list; an accept is the last. A list of the log is the only one of its row.
        """
        form, counts = self.form, self.counts
        logged = _logged_lists(gold) if rng.random() < self.tasks.from_log else []
        if logged:
            cut = rng.choice(logged)
            view = gold.view(cut)
            rounds = [(gold.dialogue.turns[cut], gold.dialogue.turns[cut + 1])]
            counts.from_log += 1
        else:
            view = gold.view(rng.choice(gold.cuts))
            rounds = self._rounds(gold, view, rng)
        if not rounds:
            return None
        ids = [*form.render(view).ids, form.tag_id(TASK_TAGS["feedback"])]
        labels = [IGNORED] * len(ids)
        for shown, answer in rounds:
            read = form.opening_ids(Role.RECOMMENDER) + form.turn_ids(shown) + form.note_ids(view, shown)
            read += form.opening_ids(Role.USER)
            learned = form.turn_ids(answer)
            ids += read + learned
            labels += [IGNORED] * len(read) + learned
        counts.lists += len(rounds)
        counts.gold_listed += rounds[-1][1].action is Action.ACCEPT
        return {"input_ids": ids, "labels": labels}

    def _rounds(self, gold: Gold, view: View, rng: random.Random) -> list[tuple[Turn, Turn]]:
        rounds: list[tuple[Turn, Turn]] = []
        for _ in range(rng.randint(1, self.tasks.num_lists)):
            has_gold = rng.random() < self.tasks.gold_shown
            items = self.others(gold, view, rng.randint(1, self.tasks.num_shown) - has_gold, rng)
            if has_gold:
                items.insert(rng.randint(0, len(items)), gold.item)
            if not items:
                break
            is_described = rng.random() < self.tasks.described
            shown = shown_turn(items, gold.catalog.domain.noun, rng, is_described=is_described)
            answer, differs = answer_to(items, gold.item if has_gold else None, gold, view, rng)
            self.counts.no_difference += not differs
            rounds.append((shown, answer))
            view = view.after(shown, answer)
            if has_gold:
                break
        return rounds

    def attributes(self, gold: Gold, rng: random.Random) -> Row | None:
        """A row of the attribute task: history, tag, and the attributes, which are learned. None where none is known."""
        facts = facts_of_gold(gold.item)
        if not facts:
            return None
        form = self.form
        ids = [*form.render(gold.view(rng.choice(gold.cuts))).ids, form.tag_id(TASK_TAGS["attributes"])]
        text = " " + ", ".join(fact.value for fact in facts)
        return _row([*ids, form.tag_id(RESPONSE_OPEN)], [*form.encode_text(text), form.tag_id(END_OF_TURN)])

    def target(self, gold: Gold, rng: random.Random) -> Row | None:
        """A row of the target task: history, tag, titles in any order, and that of the gold item, which is learned."""
        view = gold.view(rng.choice(gold.cuts))
        items = self.others(gold, view, self.tasks.num_candidates - 1, rng)
        if not items:
            return None
        items.insert(rng.randint(0, len(items)), gold.item)
        form = self.form
        ids = [*form.render(view).ids, form.tag_id(TASK_TAGS["target"])]
        for item in items:
            ids += self._title_ids(item)
        return _row([*ids, form.tag_id(RESPONSE_OPEN)], [*self._title_ids(gold.item), form.tag_id(END_OF_TURN)])

    def _title_ids(self, item: Item) -> list[int]:
        opening, closing = (self.form.tag_id(tag) for tag in title_tags(self.form.domain))
        return [opening, *self.form.encode_text(item.label), closing]

    # ---- lists -------------------------------------------------------------------------------------------------------

    def others(self, gold: Gold, view: View, num: int, rng: random.Random) -> list[Item]:
        """Up to `num` items that are no gold item of the conversation, have not been named, and can be told from it.

        An item that has everything the user looks for would be right as far as any user could know: it is not shown.
        """
        named = {title_key(title) for turn in view.turns for title in turn.titles}
        named |= {title_key(known.title) for known in view.known_items}
        wanted = {a.casefold() for a in view.target_attributes}
        out: list[Item] = []
        for _ in range(num * MOST_DRAWS):
            if len(out) == num:
                break
            item = rng.choice(self._pool)
            key = title_key(item.title)
            if key in named or is_any_target(item.label, item.id, gold.scenario.targets):
                continue
            if wanted and wanted <= {v.casefold() for values in item.attributes.values() for v in values}:
                continue
            named.add(key)
            out.append(item)
        return out


def _row(ids: list[int], learned: list[int]) -> Row:
    return {"input_ids": [*ids, *learned], "labels": [IGNORED] * len(ids) + learned}


def flipped_rows(scenario: Scenario, dialogue: Dialogue, form: TokenFormat) -> list[Row]:
    """The K + 1 samples of a conversation with K user turns: each turn after its history, then the end token after all.

    Args:
        scenario: tells the View.
        dialogue: of the scenario.
        form: with the tag of the flipped task.
    """
    start = view_of(scenario, Role.USER, with_persona=True)
    opening = form.opening_ids(Role.USER)
    rows = []
    for place, turn in enumerate(dialogue.turns):
        if turn.role is Role.USER:
            rows.append(_row([*form.render(start.after(*dialogue.turns[:place])).ids, *opening], form.turn_ids(turn)))
    rows.append(_row([*form.render(start.after(*dialogue.turns)).ids, *opening], [form.tag_id(TASK_TAGS["flipped"])]))
    return rows


def _logged_lists(gold: Gold) -> list[int]:
    """Places of recommender turns that name items and that the person answers as the feedback task would have it."""
    turns, targets = gold.dialogue.turns, gold.scenario.targets
    out = []
    for place in gold.cuts:
        if place + 1 >= len(turns) or turns[place].role is not Role.RECOMMENDER or not turns[place].items:
            continue
        fitting = Action.ACCEPT if _names_target(turns[place], targets) else Action.FEEDBACK
        if turns[place + 1].action is fitting:
            out.append(place)
    return out


# ---- words -----------------------------------------------------------------------------------------------------------


def facts_of_gold(item: Item) -> list[Facet]:
    """The attributes of an item that are talked about, at most MOST_PER_KIND of a kind, without those that name its title."""
    kinds = [*(k for k in KINDS if k in item.attributes), *(k for k in item.attributes if k not in KINDS and k not in _UNASKED)]
    return [
        Facet(kind, value)
        for kind in kinds
        for value in item.attributes[kind][:MOST_PER_KIND]
        if not names_title(value, item.title) and title_key(value) != title_key(item.title)
    ]


def revealed(facts: Iterable[Facet], view: View) -> list[Facet]:
    """Those attributes that the View has told already: that are looked for, or that somebody has spoken of."""
    wanted = {a.casefold() for a in view.target_attributes}
    said = "\n".join([view.general_preferences, *(turn.text for turn in view.turns)])
    return [fact for fact in facts if fact.value.casefold() in wanted or speaks_of(said, fact.value)]


def answer_to(items: Sequence[Item], accepted: Item | None, gold: Gold, view: View, rng: random.Random) -> tuple[Turn, bool]:
    """The user's answer to a list, in words of ours.

    Accepts the gold item by its title. Else says what the gold item has and the list lacks, or what the item on the list that
    is nearest to it has and it lacks. What the View has told already is asked for first; other attributes of the gold item
    only where nothing of that sets the list apart.

    Args:
        items: on the list.
        accepted: the gold item where it is among them.
        gold: the conversation.
        view: what the user has seen of it.
        rng: draws the wording.

    Returns:
        The turn, and whether it names an attribute (always true of an accept).
    """
    words, noun = load_wording("lists"), gold.catalog.domain.noun
    facts = facts_of_gold(gold.item)
    known = revealed(facts, view)
    capitals = rng.random() < 0.7
    if accepted is not None:
        told = rng.sample(known, min(len(known), rng.randint(1, 2)))
        key = "accept.because" if told and rng.random() < 0.6 else "accept.plain"
        text = words.pick(rng, key, want=noun_phrase(told, noun), noun=noun)
        return make_turn(Role.USER, Action.ACCEPT, tidy(text, capitals=capitals), [accepted]), True
    shared = {item.id: len(set(facts) & set(facets_of(item))) for item in items}
    nearest = max(items, key=lambda item: shared[item.id])
    listed = set(chain.from_iterable(facets_of(item) for item in items))
    lacking = [f for f in known if f not in listed] or [f for f in known if f not in facets_of(nearest)]
    lacking = lacking or [f for f in facts if f not in listed] or [f for f in facts if f not in facets_of(nearest)]
    want = rng.sample(lacking, min(len(lacking), rng.randint(1, 2)))
    # A value can be held against the item only where the gold item is known to have others of the kind.
    kinds = {fact.kind for fact in facts}
    own = set(facets_of(gold.item))
    unwanted = [fact for fact in facts_of_gold(nearest) if fact.kind in kinds and fact not in own]
    unwanted = [f for f in unwanted if f.kind in {w.kind for w in want}] or unwanted
    has = rng.sample(unwanted, min(len(unwanted), 1))
    if want and has:
        key = rng.choice(("reject.both", "reject.both", "reject.title", "reject.want"))
    else:
        key = "reject.want" if want else "reject.has" if has else "reject.plain"
    text = words.pick(rng, key, want=noun_phrase(want, noun), has=noun_phrase(has, noun), noun=noun)
    if rng.random() < 0.3:
        text = join(words.pick(rng, "reject.before"), text)
    text = tidy(text, capitals=capitals)
    return make_turn(Role.USER, Action.FEEDBACK, text, [nearest] * text.count(TITLE)), bool(want or has)


_AFTER = {
    "decade": "from the {}",
    "theme": "about {}",
    "director": "by {}",
    "author": "by {}",
    "artist": "by {}",
    "cast": "with {}",
}
"""How a value of a kind is said behind the noun; values of other kinds stand before it."""


def noun_phrase(facts: Sequence[Facet], noun: str) -> str:
    """Attributes in one phrase, with the article marker of `wording.tidy`.

    >>> noun_phrase([Facet("genre", "crime"), Facet("decade", "1990s")], "movie"), noun_phrase([Facet("cast", "Cher")], "movie")
    ('a(n) crime movie from the 1990s', 'something with Cher')
    """
    before = [fact.value for fact in facts if fact.kind not in _AFTER]
    after = [_AFTER[fact.kind].format(fact.value) for fact in facts if fact.kind in _AFTER]
    return " ".join([f"a(n) {' '.join(before)} {noun}" if before else "something", *after])


def shown_turn(items: Sequence[Item], noun: str, rng: random.Random, *, is_described: bool) -> Turn:
    """A recommender's turn that shows items, in words of ours.

    Args:
        items: at least one.
        noun: what the items are.
        rng: draws the wording.
        is_described: whether it tells what the items are beside their titles (genres, decade, one of the people, ...).
    """
    described = []
    for item in items:
        kinds = by_kind(facts_of_gold(item)) if is_described else {}
        told = [Facet(kind, value) for kind, values in kinds.items() for value in (values if kind == "genre" else values[:1])]
        told = [fact for fact in told if fact.kind in ("genre", "decade") or rng.random() < 0.3]
        described.append(f"{TITLE}, {noun_phrase(told, noun)}" if told else TITLE)
    key = "show.one" if len(items) == 1 else "show.many"
    text = load_wording("lists").pick(rng, key, titles=list_of(described, rng.choice(("or", "and"))), noun=noun)
    return make_turn(Role.RECOMMENDER, Action.RECOMMEND, tidy(text, capitals=rng.random() < 0.8), items)


# ---- mixture ---------------------------------------------------------------------------------------------------------


def quotas(tasks: UserTasks, whole: str, num_whole: int) -> dict[str, int]:
    """How many rows each task of the mixture gets.

    Args:
        tasks: the weights.
        whole: the task that is used whole.
        num_whole: its rows.

    >>> quotas(UserTasks(feedback=0.5, target=0.25), "next_turn", 100)
    {'next_turn': 100, 'feedback': 50, 'target': 25}
    """
    unit = num_whole / getattr(tasks, whole)
    weights = {task: float(getattr(tasks, task)) for task in (NEXT_TURN, *TASK_TAGS)}
    return {task: round(unit * weight) for task, weight in weights.items() if weight > 0}


def mixture(
    tasks: UserTasks,
    corpora: Sequence[Corpus],
    form: TokenFormat,
    next_turn: list[Row],
    *,
    max_length: int,
    seed: int,
) -> tuple[list[Row], TaskCounts]:
    """The rows that a user simulator is trained on, in the proportions of the weights.

    Next-turn rows are used whole where they are in the mixture; else the samples of the flipped task; else there is one row of
    the first other task per conversation with a gold item. The other tasks are drawn from their conversations in turn, with
    another history, list and wording each time, as often as their weight asks for.

    Args:
        tasks: the weights, and how lists are drawn.
        corpora: of one domain; the training split is used.
        form: with the tags of the tasks.
        next_turn: rows of `rows.training_rows`.
        max_length: a row has at most so many tokens.
        seed: of all draws.

    Raises:
        DataError: a task can make no row of the data.
    """
    counts = TaskCounts()
    trained = trained_tasks(tasks, "user")
    golds = gold_conversations(corpora, Split.TRAIN, counts)
    flipped = list(_flipped(corpora, form, max_length, counts)) if "flipped" in trained else []
    sizes = {NEXT_TURN: len(next_turn), "flipped": len(flipped)}
    whole = NEXT_TURN if tasks.next_turn else trained[-1] if trained[-1] == "flipped" else trained[0]
    maker = RowMaker(form, tasks, golds, counts)
    out: list[Row] = []
    for task, num in quotas(tasks, whole, sizes.get(whole, len(golds))).items():
        rng = random.Random(derive_seed(seed, "task", task))
        if task == NEXT_TURN:
            rows = next_turn
        elif task == "flipped":
            rows = _spread(flipped, num, rng)
        else:
            rows = _drawn(task, getattr(maker, task), golds, num, rng, max_length, counts)
        if num and not rows:
            raise DataError(
                f"no conversation of the training split gives a row of the task {task} within --max-length {max_length} "
                f"({len(golds)} have a gold item with a place in the catalog); leave it out with --tasks.{task} 0"
            )
        out += rows
        counts.rows[task] = len(rows)
        counts.tokens[task] = sum(len(row["labels"]) for row in rows)
        counts.labelled_tokens[task] = sum(label != IGNORED for row in rows for label in row["labels"])
    return out, counts


def examples(tasks: UserTasks, corpora: Sequence[Corpus], form: TokenFormat, seed: int) -> dict[str, Row]:
    """A row of each task that is trained beside the next turn, as far as the data give one; of flipped samples, the last."""
    counts = TaskCounts()
    golds = gold_conversations(corpora, Split.TRAIN, counts)
    maker = RowMaker(form, tasks, golds, counts)
    out = {}
    for task in trained_tasks(tasks, "user"):
        rng = random.Random(derive_seed(seed, "task", task))
        if task == "flipped":
            made = [flipped_rows(*pair, form)[-1] for pair in islice(corpora[0].pairs(Split.TRAIN), 1)]
        else:
            made = [row for gold in golds[:MOST_DRAWS] if (row := getattr(maker, task)(gold, rng)) is not None]
        if made:
            out[task] = made[0]
    return out


def _flipped(corpora: Iterable[Corpus], form: TokenFormat, max_length: int, counts: TaskCounts) -> Iterator[Row]:
    for corpus in corpora:
        for scenario, dialogue in corpus.pairs(Split.TRAIN):
            for row in flipped_rows(scenario, dialogue, form):
                if len(row["labels"]) <= max_length:
                    yield row
                else:
                    counts.too_long["flipped"] = counts.too_long.get("flipped", 0) + 1


def _spread(rows: list[Row], num: int, rng: random.Random) -> list[Row]:
    """`num` of the rows in random order; each again before any comes a third time, and so on."""
    out: list[Row] = []
    while rows and len(out) < num:
        out += rng.sample(rows, min(len(rows), num - len(out)))
    return out


def _drawn(
    task: str,
    make: Callable[[Gold, random.Random], Row | None],
    golds: Sequence[Gold],
    num: int,
    rng: random.Random,
    max_length: int,
    counts: TaskCounts,
) -> list[Row]:
    out: list[Row] = []
    order = rng.sample(golds, len(golds))
    failures = 0  # in a row: once round all conversations without one row
    for gold in cycle(order):
        if len(out) == num or failures >= MOST_DRAWS * len(order):
            break
        row = make(gold, rng)
        if row is not None and len(row["labels"]) <= max_length:
            out.append(row)
            failures = 0
            continue
        failures += 1
        if row is not None:
            counts.too_long[task] = counts.too_long.get(task, 0) + 1
    return out
