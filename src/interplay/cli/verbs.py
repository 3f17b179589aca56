"""The verbs: each parses its config, calls one function of `pipeline`, and prints one summary."""

import logging
import os
import sys
import warnings
from collections.abc import Sequence

from interplay import config as configs
from interplay.cli import pipeline
from interplay.config import Config, parse_config, to_toml


def run_verb(verb: str, args: Sequence[str]) -> int:
    """Run one verb with the arguments that follow it. Returns the exit code.

    Raises:
        InterplayError: see the functions of `pipeline`.
    """
    _quieten()
    prog = f"interplay {verb}"
    config: Config
    match verb:
        case "data":
            config = parse_config(configs.DataConfig, args, prog)
            return _resolved(config) or pipeline.make_data(config)
        case "train":
            config = parse_config(configs.TrainConfig, args, prog)
            return _resolved(config) or pipeline.train(config)
        case "optimize":
            from interplay.cli.optimize import optimize

            config = parse_config(configs.OptimizeConfig, args, prog)
            return _resolved(config) or optimize(config)
        case "simulate":
            config = parse_config(configs.SimulateConfig, args, prog)
            return _resolved(config) or pipeline.simulate(config)
        case "evaluate":
            from interplay.cli.evaluate import run_evaluate

            return run_evaluate(args, _resolved)
        case "report":
            config = parse_config(configs.ReportConfig, args, prog)
            return _resolved(config) or pipeline.report(config)
        case "chat":
            from interplay.cli.chat import chat

            config = parse_config(configs.ChatConfig, args, prog)
            return _resolved(config) or chat(config)
        case "items":
            from interplay.cli.items import run_items

            return run_items(args, _resolved)
        case "quickstart":
            from interplay.cli.quickstart import quickstart

            config = parse_config(configs.QuickstartConfig, args, prog)
            return _resolved(config) or quickstart(config)
        case _:
            raise ValueError(f"no such verb: {verb}")


def _resolved(config: Config) -> int | None:
    """With --dry-run print the config; 0 would end the verb, so None stands for "go on"."""
    if not config.dry_run:
        return None
    print(to_toml(config.model_dump(mode="json")))
    sys.stdout.flush()
    raise SystemExit(0)


def _quieten() -> None:
    """Keep the libraries' own bars, notices and usage reports off; read by them when they are imported."""
    for name, value in {
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
    }.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module="torch|transformers|trl")
    logging.getLogger("interplay").addHandler(logging.StreamHandler())
    logging.getLogger("interplay").setLevel(logging.INFO)
