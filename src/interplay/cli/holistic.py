"""`interplay evaluate holistic`: several acts in one turn, small talk, off the topic and back, beside people."""

from interplay import __version__
from interplay.cli.pipeline import print_rows
from interplay.cli.sources import read_dialogues
from interplay.config import HolisticConfig
from interplay.store import Run
from interplay.types import content_hash


def holistic(config: HolisticConfig) -> int:
    """`interplay evaluate holistic`. Returns 0.

    Raises:
        DataError: a source is no Run and no data directory, or holds no conversation.
        RunError: the output can't be written.
    """
    from interplay.evaluation.holistic import holistic_rows, talk_of
    from interplay.evaluation.scoring import HUMAN, About

    source = read_dialogues(config.source, config.split)
    digest = content_hash([[d.key, [t.text for t in d.turns]] for d in source.dialogues])
    name = f"{source.user} with {source.recommender}"
    about = About(name, config.split or "all", config.seed, digest)
    found = holistic_rows([talk_of(d) for d in source.dialogues], about)
    print(f"{len(source.dialogues)} conversations of {name}")
    if config.human is not None:
        people = read_dialogues(config.human)
        seen = content_hash([[d.key, [t.text for t in d.turns]] for d in people.dialogues])
        about = About(HUMAN, "all", config.seed, seen, condition=config.human.name)
        found += holistic_rows([talk_of(d) for d in people.dialogues], about)
        print(f"{len(people.dialogues)} conversations of {config.human.name} beside them")
    record = config.record() | {
        "verb": "evaluate",
        "protocol": "holistic",
        "data_digest": digest,
        "package_version": __version__,
    }
    run = Run.create(config.out, record, overwrite=config.overwrite)
    run.write_scores(found)
    print_rows(sorted(found, key=lambda row: row.metric))
    if source.num_faults:
        print(f"{source.num_faults} conversations that a fault ended were left out")
    print(f"written to {run.path}")
    return 0
