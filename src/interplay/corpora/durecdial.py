"""DuRecDial 2.0 in English (Liu et al., EMNLP 2021): two writers who follow goals; its movies and its music.

A conversation passes through goals (a question, a chat about a star, a recommendation, playing a song). Only those with a
recommendation of the domain are read. Nobody is named: who recommends first is the recommender, and the two take turns.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interplay.corpora.assemble import Conversation, Loaded, Tools, assemble
from interplay.corpora.attributes import without_empty
from interplay.corpora.corpus import Counts
from interplay.corpora.facts import item_id_for
from interplay.corpora.files import need_files, wrong_record
from interplay.corpora.linking import TitleLinker
from interplay.corpora.messages import Spoken, write_titles
from interplay.store import read_json_lines
from interplay.titles import title_key
from interplay.types import DOMAINS, Catalog, Item, Role

FILES = ("en_train.txt", "en_dev.txt", "en_test.txt")
_FIELDS = ("conversation", "goal_type_list", "goal_topic_list", "knowledge", "user_profile")
_RECOMMENDS = {"movie": "Movie recommendation", "song": "Music recommendation"}
_ABOUT = {"movie": ("Movie recommendation",), "song": ("Music recommendation", "Play music", "Music on demand")}
"""Goals whose topic is an item."""
_ACCEPTED = {"movie": ("Accepted movie", "Accepted movies"), "song": ("Accepted music", "Accepted Music")}
_REJECTED = {"movie": ("Rejected movies",), "song": ("Rejected music",)}
_ABOUT_ITEM = {"Director": "director", "Type": "genre"}
_ABOUT_PERSON = {"movie": {"Stars": "cast"}, "song": {"Sings": "artist"}}
_GOAL_NUMBER = re.compile(r"^\[\d+\]\s*")


def load_movies(source: Path, tools: Tools) -> Loaded:
    """The conversations of DuRecDial 2.0 in which a movie is recommended. Raises DataError: no file, or a damaged one."""
    return _load("durecdial-movies", "movie", source, tools)


def load_music(source: Path, tools: Tools) -> Loaded:
    """The conversations of DuRecDial 2.0 in which a song is recommended. Raises DataError: no file, or a damaged one."""
    return _load("durecdial-music", "song", source, tools)


def _load(name: str, domain: str, source: Path, tools: Tools) -> Loaded:
    counts = Counts()
    rows: list[tuple[str, dict[str, Any], int]] = []
    for path in need_files(source, name, *FILES):
        for number, row in read_json_lines(path):
            if not isinstance(row, dict) or any(f not in row for f in _FIELDS):
                raise wrong_record(path, number, name, f"an object with {', '.join(_FIELDS)}", row)
            lengths = {len(row[f]) for f in _FIELDS[:3]}
            if len(lengths) > 1:
                raise wrong_record(path, number, name, f"as many entries in each of {', '.join(_FIELDS[:3])}", row)
            counts.dialogues_read += 1
            first = next((n for n, goal in enumerate(row["goal_type_list"]) if goal == _RECOMMENDS[domain]), None)
            if first is None:
                counts.drop("of another domain")
            else:
                rows.append((f"{path.name.partition('.')[0]}-{number}", row, first % 2))
    catalog = Catalog(_items([row for _, row, _ in rows], domain), DOMAINS[domain])
    linker = TitleLinker(catalog)
    conversations = [_conversation(key, row, parity, domain, catalog, linker) for key, row, parity in rows]
    return assemble(name, conversations, catalog, tools, counts)


def _conversation(
    key: str, row: dict[str, Any], parity: int, domain: str, catalog: Catalog, linker: TitleLinker
) -> Conversation:
    proposed = [item.id for title in _titles(row, domain) if (item := catalog.find(title)) is not None]
    messages = []
    for number, text in enumerate(row["conversation"]):
        words = _GOAL_NUMBER.sub("", text)
        written, mentions = write_titles(words, linker.find(words, proposed))
        role = Role.RECOMMENDER if number % 2 == parity else Role.USER
        messages.append(Spoken(role, written, mentions, (text,)))
    opinions = {
        item.id: likes
        for likes, kinds in ((True, _ACCEPTED), (False, _REJECTED))
        for title in _profile(row["user_profile"], kinds[domain])
        if (item := catalog.find(title)) is not None
    }
    # Profiles are made up and one serves many conversations, so that a name is no person whose turns would be shared.
    return Conversation(key, None, messages, lenient=True, open_end=True, opinions=opinions)


def _titles(row: dict[str, Any], domain: str) -> list[str]:
    goals = zip(row["goal_type_list"], row["goal_topic_list"], strict=True)
    # A topic that only repeats the goal's name stands where the annotators gave none.
    return list(dict.fromkeys(topic.strip() for goal, topic in goals if goal in _ABOUT[domain] and topic != goal))


def _profile(profile: Mapping[str, Any], kinds: tuple[str, ...]) -> list[str]:
    out: list[str] = []
    for kind in kinds:
        value = profile.get(kind, ())
        out += [value] if isinstance(value, str) else list(value)
    return out


def _items(rows: list[dict[str, Any]], domain: str) -> list[Item]:
    facts: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        for triple in row["knowledge"]:
            if len(triple) != 3:
                continue
            head, relation, tail = (str(part).strip() for part in triple)
            if relation in _ABOUT_ITEM and domain == "movie":
                facts.setdefault(title_key(head), {}).setdefault(_ABOUT_ITEM[relation], []).append(tail)
            elif relation in _ABOUT_PERSON[domain]:
                facts.setdefault(title_key(tail), {}).setdefault(_ABOUT_PERSON[domain][relation], []).append(head)
    items: dict[str, Item] = {}
    named: set[str] = set()
    for row in rows:
        for title in _titles(row, domain):
            if title_key(title) in named:
                continue
            named.add(title_key(title))
            known = {kind: tuple(dict.fromkeys(values)) for kind, values in facts.get(title_key(title), {}).items()}
            item_id = item_id_for(title, None, items)
            items[item_id] = Item(id=item_id, title=title, attributes=without_empty(known))
    return list(items.values())
