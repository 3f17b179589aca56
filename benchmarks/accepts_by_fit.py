"""How often users accept, by whether what is on offer fits: `python benchmarks/accepts_by_fit.py DIR... [--split S]`.

DIR is a data directory or a Run. Of each it prints a Markdown line: the share of user turns that accept where an offer has all,
some or none of the target attributes (`simulation.fit`), and the share of turns with a wish that name a target attribute.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

from interplay.corpora.corpus import Corpus
from interplay.simulation.fit import ALL, NONE, SOME, fit_text
from interplay.store import read_records, write_lines
from interplay.types import DOMAINS, Action, Catalog, Dialogue, Item, Role, Scenario, Split


def counts_of(path: Path, split: Split | None) -> Counter[str]:
    """Turns and accepts by fit, wishes, and wishes that name a target attribute."""
    if (path / "corpus.json").is_file():
        corpus = Corpus.read(path)
        catalog, pairs = corpus.catalog, [p for one in Split if split in (None, one) for p in corpus.pairs(one)]
    else:
        starts = {s.key: s for s in read_records(path / "scenarios.jsonl", Scenario)}
        pairs = [(starts[d.scenario_key], d) for d in read_records(path / "dialogues.jsonl", Dialogue)]
        catalog = Catalog(read_records(path / "catalog.jsonl", Item), DOMAINS[pairs[0][0].domain])
    found: Counter[str] = Counter()
    for scenario, dialogue in pairs:
        wanted = scenario.persona.target_attributes
        for number, turn in enumerate(dialogue.turns):
            if turn.role is not Role.USER:
                continue
            if (fit := fit_text(catalog, wanted, dialogue.turns[:number])) is not None:
                found[fit] += 1
                found[f"accepts {fit}"] += turn.action is Action.ACCEPT
            if turn.action is Action.DISCLOSE_GOAL:
                found["wishes"] += 1
                found["own wishes"] += any(attribute.casefold() in turn.text.casefold() for attribute in wanted)
    return found


def share(found: Counter[str], part: str, whole: str) -> str:
    """A share with its n, or a dash."""
    return f"{found[part] / found[whole]:.3f} ({found[whole]})" if found[whole] else "–"


def main() -> None:
    """Print the table and write the counts."""
    parser = argparse.ArgumentParser(description="Accepts by whether what is on offer fits.")
    parser.add_argument("paths", nargs="+", type=Path, help="data directories or Runs")
    parser.add_argument("--split", type=Split, choices=list(Split), help="of data directories; all by default")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    every = {str(path): counts_of(path, options.split) for path in options.paths}
    print("| | accepts: all | some | none | own wish named |\n|---|---:|---:|---:|---:|")
    for name, found in every.items():
        cells = [*(share(found, f"accepts {fit}", fit) for fit in (ALL, SOME, NONE)), share(found, "own wishes", "wishes")]
        print(f"| {name} | {' | '.join(cells)} |")
    if options.out is not None:
        write_lines(options.out, [json.dumps(every, indent=1)])


if __name__ == "__main__":
    main()
