"""Cross-validated quality of the action tagger: `python benchmarks/tagger.py [IARD file or directory]`.

Without an argument, $INTERPLAY_DATA/iard is read. About half a minute on two cores.
"""

import os
import sys
from pathlib import Path

from interplay.corpora.tagger import cross_validate


def main() -> None:
    """Print one table per role."""
    if len(sys.argv) > 1:
        path = Path(sys.argv[1])
    elif "INTERPLAY_DATA" in os.environ:
        path = Path(os.environ["INTERPLAY_DATA"]) / "iard"
    else:
        sys.exit("give the IARD file or directory, or set INTERPLAY_DATA")
    for score in cross_validate(path):
        print(f"\n{score.role}: 5-fold macro-F1 {score.macro_f1:.3f} (accuracy {score.accuracy:.3f})")
        print(f"  majority baseline {score.majority_macro_f1:.3f}, rules alone {score.rules_macro_f1:.3f}")
        for action, (f1, num) in sorted(score.f1.items(), key=lambda pair: -pair[1][1]):
            print(f"  {action:<14} F1 {f1:.3f}  turns {num}")


if __name__ == "__main__":
    main()
