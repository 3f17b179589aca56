"""Quality of item vectors: `python benchmarks/vectors.py [--splits 1 2] [--encoder tfidf] [--json FILE]`.

Builds one catalog of the movie sources in $INTERPLAY_DATA and reads the MovieLens ratings there; of every user a fifth of the
rated films is held out. Each line is a mean over the splits of a mean over users; settings were chosen on split 0. The
comparison needs `implicit`: pip install 'interplay[bench]'. `interplay items train` prints the same table for one split.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from items_catalog import data_root, real_catalog

from interplay import __version__
from interplay.errors import InputError
from interplay.evaluation.heldout import quality_table
from interplay.items.bpr import HeadTraining, train_bpr
from interplay.items.encoders import encode_items
from interplay.items.ratings import leave_some_out, read_ratings

METHODS = {
    "text and BPR head": HeadTraining(own=False),
    "text, BPR head, parts of their own": HeadTraining(),
}


def measure(splits: list[int], encoder: str, held_out: float) -> dict[str, dict[str, Any]]:
    """The table, by method."""
    built = real_catalog()
    ratings = read_ratings(f"movielens:{data_root() / 'movielens' / 'ml-latest-small'}", built)
    print(f"{len(built.catalog)} items; {json.dumps(dict(ratings.card))}")
    text = encode_items(list(built.catalog), encoder)
    found: dict[str, list[dict[str, Any]]] = {}
    for split in splits:
        train, held = leave_some_out(ratings, held_out, split)
        trained = {}
        for name, how in METHODS.items():
            started = time.process_time()
            trained[name] = train_bpr(text, train, how, seed=split)
            print(f"split {split}, {name}: {time.process_time() - started:.0f} processor seconds", flush=True)
        for name, one in quality_table(text, train, held, trained, seed=split).items():
            found.setdefault(name, []).append(one.record())
    return {
        name: {m: statistics.mean(r[m] for r in rows) for m in ("auc", "recall@20", "auc_unseen_items")} | {"splits": rows}
        for name, rows in found.items()
    }


def main() -> None:
    """Print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--splits", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--encoder", default="tfidf")
    parser.add_argument("--held-out", type=float, default=0.2)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    try:
        table = measure(args.splits, args.encoder, args.held_out)
    except InputError as error:
        sys.exit(str(error))
    print(f"\n{'':<38}AUC     recall@20  AUC of items without a training like")
    for name, row in table.items():
        print(f"{name:<38}{row['auc']:.3f}   {row['recall@20']:.3f}      {row['auc_unseen_items']:.3f}")
    if args.json is not None:
        head = {"version": __version__, "python": platform.python_version(), "encoder": args.encoder, "splits": args.splits}
        args.json.write_text(json.dumps({**head, "methods": table}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
