"""RecQuest (Kostric, Gadiraju and Balog): people who know little or much of a product talk to a language model that recommends.

The people are real, the recommender is not. Products have shop titles of twenty words; in conversation the opening of such a
title is said ("the eAhora Urban Step Thru Electric Bike"), and that is the title here. The whole shop title is kept as the
item's text.
"""

import re
from collections import Counter
from pathlib import Path
from typing import Any

from interplay.corpora.assemble import Conversation, Loaded, Tools, assemble
from interplay.corpora.corpus import Counts
from interplay.corpora.endings import Wanted
from interplay.corpora.files import need_files, wrong_record
from interplay.corpora.messages import Span, Spoken, write_titles
from interplay.store import read_json_lines
from interplay.types import DOMAINS, Catalog, Item, Role

FILE = "dialogues.jsonl"
_FIELDS = ("file", "domain", "messages", "completed")
_ROLES = {"human": Role.USER, "ai": Role.RECOMMENDER}
_SELECTED = re.compile(r"Selected item for recommendation: (.+?) \(ID: (\w+)\)", re.DOTALL)
_CONFIRMED = re.compile(r"You've selected \*\*(.+?)\*\*", re.DOTALL)
_FINAL = "before we finalize"
"""Opens the question why the choice was made: the study's form, no conversation. It and the answer are left out."""
FEWEST_WORDS = 2
"""A shorter opening of a shop title ("Apple") names a maker and no product."""
MOST_WORDS = 12
"""Of a title of which no opening was said."""
COMMON_SHARE = 0.03
"""An opening all of whose words are in more than this share of the shop titles ("Electric Bike") names no product either."""


def load(source: Path, tools: Tools) -> Loaded:
    """The conversations of RecQuest, of five kinds of products.

    Raises:
        DataError: its file is missing or damaged.
    """
    (path,) = need_files(source, "recquest", FILE)
    counts = Counts()
    rows: list[dict[str, Any]] = []
    for number, row in read_json_lines(path):
        if not isinstance(row, dict) or any(f not in row for f in _FIELDS):
            raise wrong_record(path, number, "recquest", f"an object with {', '.join(_FIELDS)}", row)
        counts.dialogues_read += 1
        rows.append(row)
    catalog = Catalog(_items(rows), DOMAINS["product"])
    return assemble("recquest", [_conversation(row, catalog) for row in rows], catalog, tools, counts)


def _content(message: dict[str, Any]) -> str:
    return str(message.get("content") or "")


def _conversation(row: dict[str, Any], catalog: Catalog) -> Conversation:
    shown: list[str] = []
    messages: list[Spoken] = []
    chosen: str | None = None
    ids = {item.text: item.id for item in catalog}
    for message in row["messages"]:
        text = _content(message)
        if (selected := _SELECTED.search(text)) is not None:
            shown.append(selected.group(2))
        role = _ROLES.get(message["role"])
        if role is None:
            continue
        if role is Role.RECOMMENDER and _FINAL in text.casefold():
            break
        if (confirmed := _CONFIRMED.search(text)) is not None and role is Role.RECOMMENDER:
            chosen = ids.get(confirmed.group(1), chosen)
        plain = text.replace("*", "")
        items = [catalog[i] for i in dict.fromkeys(reversed(shown)) if i in catalog]
        written, mentions = write_titles(plain, _spans(plain, items))
        messages.append(Spoken(role, written, mentions, (text,)))
    wanted = [Wanted(chosen)] if row["completed"] and chosen is not None else []
    return Conversation(
        str(row["file"]).removesuffix(".json"), None, messages, wanted=wanted, lenient=True, recommender="recquest"
    )


def _spans(text: str, items: list[Item]) -> list[Span]:
    """Where items are named: the whole shop title, or its opening that is the item's title here."""
    found: list[Span] = []
    for item in items:
        for name in (item.text, item.title):
            for match in re.finditer(re.escape(name), text, re.IGNORECASE):
                if all(match.end() <= span.start or span.end <= match.start() for span in found):
                    found.append(Span(match.start(), match.end(), item))
    return sorted(found, key=lambda span: span.start)


def _items(rows: list[dict[str, Any]]) -> list[Item]:
    titles: dict[str, str] = {}
    kinds: dict[str, str] = {}
    openings: dict[str, Counter[str]] = {}
    for row in rows:
        shown: dict[str, str] = {}
        for message in row["messages"]:
            text = _content(message)
            if (selected := _SELECTED.search(text)) is not None:
                title, item_id = selected.group(1).strip(), selected.group(2)
                titles.setdefault(item_id, title)
                kinds.setdefault(item_id, str(row["domain"]).replace("_", " "))
                shown[item_id] = titles[item_id]
            elif message["role"] == "ai":
                for item_id, title in shown.items():
                    said = _said(title, text.replace("*", ""))
                    if said is not None and said != title:
                        openings.setdefault(item_id, Counter())[said] += 1
    num_titles = Counter(word for title in titles.values() for word in set(title.casefold().split()))
    common = {word for word, num in num_titles.items() if num > max(1, COMMON_SHARE * len(titles))}
    whole = [title.casefold() for title in titles.values()]

    def is_name(opening: str) -> bool:
        key = opening.casefold()
        return not set(key.split()) <= common and sum(title.startswith(key) for title in whole) == 1

    items: list[Item] = []
    taken: set[str] = set()
    for item_id, title in sorted(titles.items()):
        names = [name for name, _ in openings.get(item_id, Counter()).most_common() if is_name(name)]
        short = names[0] if names else " ".join(title.split()[:MOST_WORDS]).rstrip(",;:.-(")
        # Two products of one maker may open alike; then the longer title tells them apart.
        name = short if short.casefold() not in taken else title
        taken.add(name.casefold())
        items.append(Item(id=item_id, title=name, attributes={"kind": (kinds[item_id],)}, text=title))
    return items


def _said(title: str, text: str) -> str | None:
    """The longest opening of a shop title that a text says, at least FEWEST_WORDS long."""
    lower = text.casefold()
    words = list(re.finditer(r"\S+", title))
    for number in range(len(words), FEWEST_WORDS - 1, -1):
        opening = title[: words[number - 1].end()].rstrip(",;:.-(")
        if opening.casefold() in lower:
            return opening
    return None
