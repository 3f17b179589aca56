"""One measurement in a process of its own: reads a job as JSON from stdin, prints the result as one JSON line at the end.

`python benchmarks/engines/worker.py` with {"engine": NAME, ...}; `benchmarks/simulate.py` writes the jobs.
"""

import importlib
import json
import resource
import sys
import time
import traceback
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "src")]
# Python puts this script's own folder first, where a module is named like a library that it wraps.
sys.path.remove(str(Path(__file__).parent))


def main() -> None:
    """Run the job that stdin holds."""
    job = json.load(sys.stdin)
    module, _, function = job["run"].partition(":")
    start = time.perf_counter()
    try:
        result = getattr(importlib.import_module(f"engines.{module}"), function)(job)
    except Exception as error:  # a comparison that refuses to run is a finding, not the end of the benchmark
        traceback.print_exc()
        result = {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
    result["wall_seconds"] = time.perf_counter() - start
    result["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print("\n" + json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
