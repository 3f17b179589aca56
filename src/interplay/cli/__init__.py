"""The command line: parse, call one function, print one summary. Slow things are imported by the verb that needs them.

Exit codes: 0 done; 1 the user's input is at fault (one line on stderr); 2 partial results (faults of a backend);
130 interrupted.
"""

import gc
import sys
from collections.abc import Sequence

from interplay.errors import InputError, InterplayError

VERBS = {
    "quickstart": "everything below on the bundled corpus with tiny models: offline, a few minutes",
    "data": "read a corpus, label actions, derive scenarios, split it",
    "items": "catalogs of items: build, show, link text to them",
    "train": "train a user simulator, a recommender, or a base of both",
    "optimize": "improve a recommender against user simulators, and prove it on others",
    "simulate": "let a user simulator and a recommender talk",
    "evaluate": "measure against logs (replay, turns, recommendation) or each other (matrix, noise, compare); judge",
    "report": "one HTML page, CSV and LaTeX tables from Runs",
    "chat": "talk to either side in the terminal",
}

COLLECT_AFTER = (50_000, 10, 100)
"""For gc.set_threshold. Records hold no cycles; looking all of them through as they are read takes as long as reading them."""

_HELP = f"""usage: interplay VERB [flags]        interplay VERB --help tells a verb's flags

Two language models, a user simulator and a recommender, in conversation: train, simulate, measure.

{chr(10).join(f"  {verb:<12}{what}" for verb, what in VERBS.items())}

Every verb takes --config FILE.toml (flags win over it) and --dry-run (prints the resolved config).
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help", "help"):
        print(_HELP, end="")
        return 0
    if args[0] in ("-V", "--version", "version"):
        from interplay import __version__

        print(f"interplay {__version__}")
        return 0
    verb, rest = args[0], args[1:]
    if verb not in VERBS:
        import difflib

        close = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        return _fail(f"unknown verb {verb}{hint}; accepted: {', '.join(VERBS)}")
    gc.set_threshold(*COLLECT_AFTER)
    try:
        from interplay.cli.verbs import run_verb

        return run_verb(verb, rest)
    except InputError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        print("interplay: interrupted; what was finished is kept, --resume goes on where that is offered", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone, for example `| head`
        sys.stderr.close()
        return 1
    except InterplayError as error:
        return _fail(str(error))


def _fail(message: str) -> int:
    print(f"interplay: {' '.join(message.split())}", file=sys.stderr)
    return 1
