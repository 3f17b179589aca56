"""Recommendation on logged conversations: the table of all methods, what each view adds to the fusion, a learning curve.

    interplay data redial --whole --split-by worker --valid-fraction 0 --out DATA
    interplay items build --sources redial:DIR wikipedia:DIR movielens:DIR movielens:DIR --out CATALOG
    python benchmarks/recommend.py --data DATA --catalog CATALOG --out OUT --sizes 500 1000 2000

Rankers and Runs are kept in OUT; a ranker that is there already is not trained again.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from interplay.cli import main
from interplay.corpora.corpus import Corpus
from interplay.evaluation.ranking import place_cases
from interplay.items.contexts import cases_of
from interplay.items.ranker import ItemRanker
from interplay.items.reranking import FUSION, Floats, fused_scores
from interplay.metrics.ranking import recall_at_k
from interplay.types import Split, Turn


class Fusions:
    """The weighted sum with one view left out."""

    def __init__(self, ranker: ItemRanker) -> None:
        self.ranker, self.item_ids = ranker, ranker.item_ids

    def scores_by(self, contexts: Sequence[Sequence[Turn]], methods: Sequence[str]) -> Mapping[str, Floats]:
        found = self.ranker.view_scores(contexts)
        return {m: fused_scores(found, {v: w for v, w in FUSION.items() if f"without {v}" != m}) for m in methods}


def run(args: argparse.Namespace, size: int | None) -> Path:
    ranker = args.out / f"ranker-{size or 'all'}"
    command = ["items", "train-ranker", "--data", str(args.data), "--out", str(ranker), "--seed", str(args.seed)]
    command += ["--catalog", str(args.catalog)] if args.catalog else []
    command += ["--num-dialogues", str(size)] if size else []
    measure = ["evaluate", "recommendation", "--ranker", str(ranker), "--data", str(args.data), "--split", args.split]
    if not (ranker / "ranker.json").is_file() and main(command):
        raise SystemExit(1)
    if main([*measure, "--out", str(args.out / f"run-{size or 'all'}"), "--overwrite"]):
        raise SystemExit(1)
    return ranker


def ablation(args: argparse.Namespace, path: Path) -> None:
    corpus = Corpus.read(args.data)
    cases = [c for s, d in corpus.pairs(Split(args.split)) for c in cases_of(d, s.source_id)]
    methods = ["all views", *(f"without {v}" for v in FUSION)]
    placed = place_cases(Fusions(ItemRanker.read(path, corpus.catalog)), cases, methods)
    print("\nfusion (recall@1/10/50)        all                  new, seen removed")
    for method in methods:
        every = [p.ranks[method] for p in placed]
        new = [p.filtered_ranks[method] for p in placed if not p.repeated]
        cells = ["/".join(f"{recall_at_k(ranks, k):.3f}" for k in (1, 10, 50)) for ranks in (every, new)]
        print(f"{method:<30} {cells[0]:<20} {cells[1]}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--catalog", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", default="test", choices=["valid", "test"])
    parser.add_argument("--sizes", type=int, nargs="*", default=[])
    parser.add_argument("--seed", type=int, default=0)
    parsed = parser.parse_args()
    parsed.out.mkdir(parents=True, exist_ok=True)
    for number in parsed.sizes:
        print(f"\n== {number} training conversations")
        run(parsed, number)
    print("\n== all training conversations")
    ablation(parsed, run(parsed, None))
