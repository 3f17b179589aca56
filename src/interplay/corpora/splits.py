"""Dividing a corpus into train, valid and test so that the test is unseen, and reporting what is shared all the same."""

import random
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from interplay.titles import title_key
from interplay.types import Dialogue, Scenario, Split

SplitBy = Literal["target", "user", "worker", "dialogue"]
"""What the test split shares with no other: target titles, users, people on either side, or nothing but the dialogues."""


def assign_splits(
    scenarios: Sequence[Scenario],
    by: SplitBy = "target",
    valid_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
) -> list[Scenario]:
    """The scenarios with their split set, in the same order. Their keys change with it.

    Conversations that share a target title (or a user) stay together; the groups are drawn at random until a split has its
    share of conversations. Conversations without a target can't be in a test of unseen targets: they go to train or valid.
    A group that would overfill test or valid by more than half of the share goes to train.

    Args:
        scenarios: in any split.
        by: see `SplitBy`; for "worker" there is `split_by_worker`, which must leave conversations out.
        valid_fraction: share of the conversations, [0, 1).
        test_fraction: share of the conversations, [0, 1).
        seed: of the draw.

    Raises:
        ValueError: the fractions leave nothing to train on, or `by` is unknown.
    """
    if by not in ("target", "user", "dialogue"):
        raise ValueError(f"can't split by {by!r}; accepted: target, user, dialogue")
    if valid_fraction < 0 or test_fraction < 0 or valid_fraction + test_fraction >= 1:
        raise ValueError(
            f"valid_fraction {valid_fraction} and test_fraction {test_fraction} must be >= 0 and sum to less than 1"
        )
    groups = list(_groups(scenarios, by))
    random.Random(seed).shuffle(groups)
    split_of = dict.fromkeys(range(len(scenarios)), Split.TRAIN)
    for split, fraction in ((Split.TEST, test_fraction), (Split.VALID, valid_fraction)):
        share = round(fraction * len(scenarios))
        room = share
        left = []
        for group in groups:
            tests = split is Split.VALID or by != "target" or bool(scenarios[group[0]].targets)
            if tests and room > 0 and len(group) <= room + share // 2:
                split_of.update(dict.fromkeys(group, split))
                room -= len(group)
            else:
                left.append(group)
        groups = left
    return [s if s.split is split_of[i] else s.model_copy(update={"split": split_of[i]}) for i, s in enumerate(scenarios)]


def split_by_worker(
    scenarios: Sequence[Scenario], valid_fraction: float = 0.1, test_fraction: float = 0.1, seed: int = 0
) -> list[Split | None]:
    """The split of each scenario so that no person, on either side, speaks in two splits.

    Crowd workers all talk with one another, so conversations between people of two splits belong to neither and are left
    out. To leave out few, the people of a split are grown together: from one drawn at random, always the one next who has
    the largest share of his conversations with those already in. The test is drawn first and does not depend on
    `valid_fraction`; with 0, train is everything that shares no one with the test.

    Args:
        scenarios: in any split; where a person is not told, he is taken for one who speaks here only.
        valid_fraction: share of the conversations, [0, 1).
        test_fraction: share of the conversations, [0, 1).
        seed: of the draw.

    Returns:
        One per scenario; None where it is left out.

    Raises:
        ValueError: the fractions leave nothing to train on.
    """
    if valid_fraction < 0 or test_fraction < 0 or valid_fraction + test_fraction >= 1:
        raise ValueError(
            f"valid_fraction {valid_fraction} and test_fraction {test_fraction} must be >= 0 and sum to less than 1"
        )
    pairs = [(s.user_id or f"user of {i}", s.recommender_id or f"recommender of {i}") for i, s in enumerate(scenarios)]
    rng = random.Random(seed)
    splits: list[Split | None] = [Split.TRAIN] * len(pairs)
    for split, fraction in ((Split.TEST, test_fraction), (Split.VALID, valid_fraction)):
        open_pairs = [i for i, s in enumerate(splits) if s is Split.TRAIN]
        people = _grown([pairs[i] for i in open_pairs], round(fraction * len(pairs)), rng)
        for i in open_pairs:
            inside = [name in people for name in pairs[i]]
            splits[i] = split if all(inside) else None if any(inside) else Split.TRAIN
    return splits


def _grown(pairs: Sequence[tuple[str, str]], goal: int, rng: random.Random) -> set[str]:
    """People who have at least `goal` conversations among themselves, or all people."""
    links: dict[str, dict[str, int]] = {}
    for a, b in pairs:
        links.setdefault(a, {})[b] = links.get(a, {}).get(b, 0) + 1
        if a != b:
            links.setdefault(b, {})[a] = links.get(b, {}).get(a, 0) + 1
    degree = {name: sum(others.values()) for name, others in links.items()}
    people: set[str] = set()
    edge: dict[str, int] = {}
    inside = 0
    while inside < goal and len(people) < len(links):
        if edge:
            name = max(sorted(edge), key=lambda n: (edge[n] / degree[n], edge[n]))
        else:
            name = rng.choice(sorted(links.keys() - people, key=lambda n: (len(n), n)))
        inside += edge.pop(name, 0) + links[name].get(name, 0)
        people.add(name)
        for other, num in links[name].items():
            if other not in people:
                edge[other] = edge.get(other, 0) + num
    return people


def _groups(scenarios: Sequence[Scenario], by: SplitBy) -> Iterable[list[int]]:
    """Indices that must stay together: the connected components over shared target titles, or users."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    labels = []
    for index, scenario in enumerate(scenarios):
        names = []
        if by == "target":
            names = [f"title {title_key(t.title)}" for t in scenario.targets]
        elif by == "user" and scenario.user_id is not None:
            names = [f"user {scenario.user_id}"]
        names = names or [f"alone {index}"]
        labels.append(names[0])
        for name in names[1:]:
            parent[root(name)] = root(names[0])
    groups: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        groups.setdefault(root(label), []).append(index)
    return groups.values()


def overlap_report(scenarios: Sequence[Scenario], dialogues: Sequence[Dialogue]) -> dict[str, Any]:
    """What train and test share.

    Args:
        scenarios: with their split.
        dialogues: in the same order.

    Returns:
        `train`, `valid`, `test`: numbers of conversations; for `targets` (titles), `users` and `mentioned_items` (ids): the
        distinct ones in `train`, in `test`, in both (`shared`), and of the targets also those shared by valid and test.
    """
    targets: dict[Split, set[str]] = {s: set() for s in Split}
    users: dict[Split, set[str]] = {s: set() for s in Split}
    items: dict[Split, set[str]] = {s: set() for s in Split}
    sizes = dict.fromkeys(Split, 0)
    for scenario, dialogue in zip(scenarios, dialogues, strict=True):
        split = scenario.split
        sizes[split] += 1
        targets[split].update(title_key(t.title) for t in scenario.targets)
        if scenario.user_id is not None:
            users[split].add(scenario.user_id)
        items[split].update(m.item_id for turn in dialogue.turns for m in turn.items if m.item_id is not None)
    report: dict[str, Any] = {s.value: sizes[s] for s in Split}
    for name, sets in (("targets", targets), ("users", users), ("mentioned_items", items)):
        report[name] = {
            "train": len(sets[Split.TRAIN]),
            "test": len(sets[Split.TEST]),
            "shared": len(sets[Split.TRAIN] & sets[Split.TEST]),
        }
    report["targets"]["shared_valid_test"] = len(targets[Split.VALID] & targets[Split.TEST])
    return report
