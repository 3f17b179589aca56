"""CPCD (Chaganty et al. 2023): a person and a wizard who make a playlist together.

What the wizard found was shown beside the conversation and rated there; the words hardly ever name a track. So a track is
linked only where it is written, and the likes and dislikes of the person become opinions. Playlists have no item that ends
the conversation: its target is the last track named that was liked.
"""

from pathlib import Path
from typing import Any

from interplay.corpora.assemble import Conversation, Loaded, Tools, assemble
from interplay.corpora.attributes import without_empty
from interplay.corpora.corpus import Counts
from interplay.corpora.files import need_files, wrong_record
from interplay.corpora.linking import TitleLinker
from interplay.corpora.messages import Spoken, write_titles
from interplay.store import read_json_lines
from interplay.types import DOMAINS, Catalog, Item, Role

FILES = ("cpcd_v1.dialogs.train.jsonl", "cpcd_v1.dialogs.dev.val.jsonl", "cpcd_v1.dialogs.dev.test.jsonl")
_FIELDS = ("id", "turns", "tracks")


def load(source: Path, tools: Tools) -> Loaded:
    """The conversations of CPCD.

    Raises:
        DataError: none of its files is there, or one is damaged.
    """
    counts = Counts()
    rows: list[dict[str, Any]] = []
    items: dict[str, Item] = {}
    for path in need_files(source, "cpcd", *FILES):
        for number, row in read_json_lines(path):
            if not isinstance(row, dict) or any(f not in row for f in _FIELDS):
                raise wrong_record(path, number, "cpcd", f"an object with {', '.join(_FIELDS)}", row)
            counts.dialogues_read += 1
            rows.append(row)
            for track_id, track in row["tracks"].items():
                if str(track.get("track_titles") or "").strip():
                    items.setdefault(track_id, _item(track_id, track))
    catalog = Catalog(items.values(), DOMAINS["song"])
    linker = TitleLinker(catalog)
    return assemble("cpcd", [_conversation(row, catalog, linker) for row in rows], catalog, tools, counts)


def _item(track_id: str, track: dict[str, Any]) -> Item:
    artists = tuple(str(a) for a in track.get("track_artists") or ())
    release = str(track.get("track_release_titles") or "")
    return Item(
        id=track_id,
        title=str(track["track_titles"]).strip(),
        attributes=without_empty({"artist": artists, "album": (release,) if release else ()}),
    )


def _conversation(row: dict[str, Any], catalog: Catalog, linker: TitleLinker) -> Conversation:
    messages: list[Spoken] = []
    opinions: dict[str, bool] = {}
    for turn in row["turns"]:
        liked, disliked = turn.get("liked_results", ()), turn.get("disliked_results", ())
        opinions |= {track: True for track in liked if track in catalog} | {t: False for t in disliked if t in catalog}
        proposed = [track for track in (*liked, *disliked) if track in catalog]
        for role, text in ((Role.USER, turn["user_query"]), (Role.RECOMMENDER, turn["system_response"])):
            written, mentions = write_titles(text or "", linker.find(text or "", proposed))
            messages.append(Spoken(role, written, mentions, (text or "",)))
    return Conversation(str(row["id"]), None, messages, open_end=True, opinions=opinions)
