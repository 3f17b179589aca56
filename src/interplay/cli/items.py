"""`interplay items`: build a catalog, look something up in it, link a text to it."""

import difflib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from interplay import config as configs
from interplay.config import Config, parse_config
from interplay.errors import ConfigError
from interplay.types import DOMAINS, Item

if TYPE_CHECKING:
    from interplay.items.catalogs import BuiltCatalog
    from interplay.items.linking import Linker

ACTIONS = {
    "build": "a catalog from several sources, with duplicates merged",
    "show": "what a catalog knows of a title",
    "link": "which items a text means, and why",
    "train": "learn item vectors from texts and ratings",
    "train-ranker": "learn from conversations which items come next",
}

_HELP = f"""usage: interplay items ACTION [flags]        interplay items ACTION --help tells an action's flags

{chr(10).join(f"  {action:<12}{what}" for action, what in ACTIONS.items())}
"""


def run_items(args: Sequence[str], resolved: Callable[[Config], int | None]) -> int:
    """Run one action. Returns the exit code.

    Args:
        args: the command line after "items".
        resolved: prints the config and ends where --dry-run is given.

    Raises:
        InputError: see the actions.
    """
    if not args or args[0] in ("-h", "--help", "help"):
        print(_HELP, end="")
        return 0
    action, rest = args[0], args[1:]
    prog = f"interplay items {action}"
    match action:
        case "build":
            build_config = parse_config(configs.ItemsBuildConfig, rest, prog)
            return resolved(build_config) or build(build_config)
        case "show":
            show_config = parse_config(configs.ItemsShowConfig, rest, prog)
            return resolved(show_config) or show(show_config)
        case "link":
            link_config = parse_config(configs.ItemsLinkConfig, rest, prog)
            return resolved(link_config) or link(link_config)
        case "train":
            from interplay.cli.vectors import train_vectors

            vectors_config = parse_config(configs.ItemsTrainConfig, rest, prog)
            return resolved(vectors_config) or train_vectors(vectors_config)
        case "train-ranker":
            from interplay.cli.ranking import train_ranker

            ranker_config = parse_config(configs.ItemsTrainRankerConfig, rest, prog)
            return resolved(ranker_config) or train_ranker(ranker_config)
        case _:
            close = difflib.get_close_matches(action, ACTIONS, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise ConfigError(f"unknown action {action}{hint}; accepted: {', '.join(ACTIONS)}")


# ---- build -----------------------------------------------------------------------------------------------------------


def build(config: configs.ItemsBuildConfig) -> int:
    """`interplay items build`: sources become a catalog.

    Raises:
        DataError: a source is missing, damaged, lacks a column, has an id twice or names nothing.
        RunError: the output can't be written.
    """
    from interplay.corpora.attributes import normal_genre
    from interplay.corpora.bundled import bundled_movies
    from interplay.items.catalogs import MARKER, build_catalog
    from interplay.items.sources import item_records, read_mapping, read_source
    from interplay.store import prepare_output

    mapping = read_mapping(config.map)
    readings = []
    for spec in config.sources:
        if spec == "bundled":
            readings.append(item_records(bundled_movies(), "bundled"))
        else:
            readings.append(read_source(spec, mapping=mapping, genre_of=normal_genre))
    built = build_catalog(readings, DOMAINS[config.domain], year_tolerance=config.year_tolerance)
    prepare_output(config.out, overwrite=config.overwrite, marker=MARKER)
    built.write(config.out)
    _print_card(built, config)
    return 0


def _print_card(built: "BuiltCatalog", config: configs.ItemsBuildConfig) -> None:
    card = built.card
    print(f"{config.out}: {card['items']} {built.catalog.domain.plural} of {sum(card['records'].values())} records")
    print(f"  records     {_counted(card['records'])}")
    for source, reasons in card["dropped"].items():
        print(f"  dropped     {source}: {_counted(reasons)}")
    for what, label in (("merged", "merged"), ("kept_apart", "kept apart")):
        for reason, num in card[what].items():
            print(f"  {label:<12}{num} {reason}")
    print(f"  known       year {card['with_year']}, text {card['with_text']}, {_counted(card['with_attribute'])}")
    print(f"  digest      {card['digest']}")


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {num}" for name, num in counts.items())


# ---- show ------------------------------------------------------------------------------------------------------------


def show(config: configs.ItemsShowConfig) -> int:
    """`interplay items show`: everything known of the items of a title; 1 when there is none.

    Raises:
        DataError: the catalog can't be read.
        MissingExtra: rapidfuzz is not installed.
    """
    from interplay.items.catalogs import BuiltCatalog

    built = BuiltCatalog.read(config.catalog)
    by_id = built.resolve(config.title)
    if by_id is not None:
        _print_item(by_id, built)
        return 0
    linker = _linker(built)
    found = linker.link(config.title)
    items = sorted((built.catalog[i] for i in found.candidates), key=lambda i: (i.year or 0, i.id))
    if not items:
        close = linker.close_titles(config.title, config.num)
        guess = f"; spelled alike: {', '.join(i.label for i in close)}" if close else ""
        print(f"interplay: no {built.catalog.domain.noun} {config.title!r} in {config.catalog}{guess}", file=sys.stderr)
        return 1
    if len(items) > 1 or found.how == "fuzzy":
        print(f"{found.why}\n")
    for item in items[: config.num]:
        _print_item(item, built)
    if len(items) > config.num:
        print(f"... and {len(items) - config.num} more; --num shows more of them")
    return 0


def _print_item(item: Item, built: "BuiltCatalog") -> None:
    print(f"{item.label}    {item.id}")
    origin = built.origins.get(item.id)
    if origin is not None and origin.aliases:
        print(f"  also called   {'; '.join(origin.aliases)}")
    for name, values in item.attributes.items():
        facts = origin.facts.get(name, {}) if origin is not None else {}
        shown = ", ".join(values[:12]) + (f" and {len(values) - 12} more" if len(values) > 12 else "")
        print(f"  {name:<13} {shown}{f'   [{_counted(facts)}]' if facts else ''}")
    if item.text:
        print(f"  text          {item.text}")
    if origin is not None:
        sources = "; ".join(f"{s} {', '.join(ids)}" for s, ids in origin.records.items())
        print(f"  records       {sources}{'; ' + ', '.join(origin.external) if origin.external else ''}")
    print()


# ---- link ------------------------------------------------------------------------------------------------------------


def link(config: configs.ItemsLinkConfig) -> int:
    """`interplay items link`: the items that a text means, and the matches that were refused, each with its reason.

    Raises:
        DataError: the catalog can't be read.
        MissingExtra: rapidfuzz is not installed.
    """
    from interplay.items.catalogs import BuiltCatalog

    built = BuiltCatalog.read(config.catalog)
    linker = _linker(built, config.year_tolerance)
    if config.text == "-":
        for line in sys.stdin:
            text = line.rstrip("\n")
            print(json.dumps({"text": text, "links": [asdict(k) for k in linker.find(text)]}, ensure_ascii=False))
        return 0
    links = linker.find(config.text, refused=True)
    for found in links:
        item = built.catalog.get(found.item_id)
        named = f"-> {item.label}  {item.id}  {found.how} {found.score:.2f}" if item else "-> none"
        print(f"{config.text[found.start : found.end]!r} {named}\n    {found.why}")
    if not links:
        print("no title of the catalog stands in this text")
    return 0


def _linker(built: "BuiltCatalog", year_tolerance: int = 2) -> "Linker":
    from interplay.items.linking import Linker

    return Linker(built.catalog, aliases=built.aliases(), weights=built.weights(), year_tolerance=year_tolerance)
