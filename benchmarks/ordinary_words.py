"""Makes `src/interplay/items/ordinary.tsv`, what people say without meaning a title, from ReDial.

In ReDial every title is written as an @id, so what is left of its messages are words that mean no title: the few titles that
were typed after all are left out by their capitals. `python benchmarks/ordinary_words.py CATALOG` (a built catalog, whose
titles are the phrases that are counted) reads $INTERPLAY_DATA/redial/train_sample.jsonl.gz. Only counts are kept.
"""

import html
import os
import re
import sys
from collections import Counter, defaultdict
from pathlib import Path

from interplay.items.catalogs import BuiltCatalog
from interplay.items.names import forms, name_words, words_of
from interplay.store import read_json_lines, write_lines

MIN_DIALOGUES = {1: 4, 2: 3, 3: 3, 4: 3, 5: 3}
MIN_LOWER = 0.75
TYPED_TITLES = frozenset(
    {
        *("about a boy", "dirty dancing", "gone with the wind", "it follows", "knocked up", "shutter island", "spider man"),
        *("hit man", "old school"),
    }
)
"""Phrases of the list that, read in their contexts, meant the film at least as often as not."""


def main() -> None:
    """Count, and write the list."""
    if len(sys.argv) != 2 or "INTERPLAY_DATA" not in os.environ:
        sys.exit("usage: INTERPLAY_DATA=... python benchmarks/ordinary_words.py CATALOG")
    built = BuiltCatalog.read(Path(sys.argv[1]))
    titles = {w for item in built.catalog if len(w := name_words(item.title)) > 1}
    source = Path(os.environ["INTERPLAY_DATA"]) / "redial" / "train_sample.jsonl.gz"
    dialogues: dict[tuple[str, ...], set[int]] = defaultdict(set)
    total: Counter[tuple[str, ...]] = Counter()
    lower: Counter[tuple[str, ...]] = Counter()
    inside: Counter[tuple[str, ...]] = Counter()
    num_words = 0
    for number, record in read_json_lines(source):
        for message in record["messages"]:
            for part in re.split(r"@\d+|[.!?,;:]+|\n", html.unescape(message["text"])):
                words = words_of(part)
                num_words += len(words)
                found = forms([w.form for w in words])
                for size in range(1, 6):
                    for at in range(len(words) - size + 1):
                        phrase = found[at : at + size]
                        if size > 1 and phrase not in titles:
                            continue
                        total[phrase] += 1
                        dialogues[phrase].add(number)
                        if at and not part.isupper():
                            written = [part[w.start : w.end] for w in words[at : at + size]]
                            inside[phrase] += 1
                            # "I" has its capital by rule, which says nothing of a title.
                            raised = sum(w[0].isupper() and w.split("'")[0] != "I" for w in written)
                            lower[phrase] += raised * 2 <= len(written) - 1
    kept = [
        p
        for p in total
        if " ".join(p) not in TYPED_TITLES
        and len(dialogues[p]) >= MIN_DIALOGUES[len(p)]
        and (not inside[p] or lower[p] / inside[p] >= MIN_LOWER)
    ]
    kept.sort(key=lambda p: (-total[p], p))
    out = Path(__file__).parent.parent / "src/interplay/items/ordinary.tsv"
    write_lines(out, (f"{' '.join(p)}\t{1e6 * total[p] / num_words:.0f}" for p in kept))
    print(f"{len(kept)} phrases of {num_words} words: {out}")


if __name__ == "__main__":
    main()
