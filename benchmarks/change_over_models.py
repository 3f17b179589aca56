"""What training changed over several models: `python benchmarks/change_over_models.py --before RUN... --after RUN...`.

The Runs of --before are of one model, one per simulation seed; those of --after are as many of every trained model, in the same
order of seeds, model by model. A model's change is the mean over seeds of after - before; the interval is over models
(`evaluation.optimisation.over_seeds`). Prints a Markdown line per metric. `interplay evaluate compare` pairs two Runs.
"""

import argparse
import json
import sys
from pathlib import Path
from statistics import fmean

from interplay.evaluation.optimisation import over_seeds
from interplay.metrics.bootstrap import Estimate
from interplay.store import Run, write_lines

METRICS = ("simulation.accept_rate", "simulation.give_up_rate", "simulation.turns_per_dialogue")


def values_of(paths: list[Path], metric: str) -> list[float]:
    """The metric in its standard condition, of each Run of one model."""
    rows = [r for path in paths for r in Run.read(path).scores() if (r.metric, r.condition) == (metric, "standard")]
    values = [row.value for row in rows if row.value is not None]
    if len(values) != len(paths):
        sys.exit(f"{metric} is measured in {len(values)} of {len(paths)} Runs; it takes all of them")
    if len({row.subject for row in rows}) > 1:
        sys.exit(f"{', '.join(map(str, paths))} are not of one model; pass all seeds of a model, then those of the next")
    return values


def main() -> None:
    """Print the table and write the figures."""
    parser = argparse.ArgumentParser(description="What training changed over several models.")
    parser.add_argument("--before", nargs="+", type=Path, required=True, help="Runs of the model before, one per seed")
    parser.add_argument(
        "--after", nargs="+", type=Path, required=True, help="Runs after: all seeds of a model, then of the next"
    )
    parser.add_argument("--metrics", nargs="+", default=METRICS, help="of the standard condition")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    seeds = len(options.before)
    if len(options.after) % seeds:
        sys.exit(f"{len(options.after)} Runs after and {seeds} before; expected {seeds} for every model")
    every = {}
    print("| | before | after | change | the models |\n|---|---:|---:|---:|---:|")
    for metric in options.metrics:
        before = values_of(options.before, metric)
        after = [values_of(options.after[k : k + seeds], metric) for k in range(0, len(options.after), seeds)]
        models = [fmean(values) - fmean(before) for values in after]
        change = over_seeds([Estimate(value, None, None, 1) for value in models])
        every[metric] = {"before": before, "after": after, "models": models, "change": [change.value, change.low, change.high]}
        interval = "" if change.low is None or change.high is None else f" [{change.low:+.3f}, {change.high:+.3f}]"
        each = ", ".join(f"{value:+.3f}" for value in models)
        print(f"| {metric} | {fmean(before):.3f} | {fmean(map(fmean, after)):.3f} | {change.value:+.3f}{interval} | {each} |")
    if options.out is not None:
        write_lines(options.out, [json.dumps(every, indent=1)])


if __name__ == "__main__":
    main()
