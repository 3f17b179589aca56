"""`interplay train ROLE --show-masks N`: conversations as the model reads them, with the words it learns standing out."""

from rich.console import Console
from rich.text import Text

from interplay.config import TrainConfig
from interplay.formats.tokens import IGNORED, TokenFormat
from interplay.types import STATE_CUES, Role, Split, view_of

_LEARNED, _READ, _PERSONA = "bold green", "default", "dim"


def show_masks(config: TrainConfig) -> int:
    """Print the first conversations of the training split in colour."""
    from interplay.simulation.facets import FacetIndex
    from interplay.training.cue_labels import LoggedCues, trained_cues
    from interplay.training.sft import knowledge_of, read_corpora, tokenizer_for
    from interplay.training.trace_writing import traces_of
    from interplay.training.user_tasks import examples, trained_tasks

    kinds = trained_cues(config)
    tasks = trained_tasks(config.tasks, config.role)
    corpora = read_corpora(config.data)
    knowledge, _ = knowledge_of(config, corpora)
    form = TokenFormat(
        tokenizer_for(config, corpora),
        corpora[0].domain,
        notes=config.notes,
        candidates=knowledge is not None,
        tasks=tasks,
        cues=kinds,
        reasoning=config.reasoning,
        acts=config.acts,
    )
    traces, _ = traces_of(config, corpora, knowledge)
    index = FacetIndex(corpora[0].catalog) if set(kinds) & set(STATE_CUES) else None
    roles = list(Role) if config.role == "base" else [Role(config.role)]
    console = Console()
    for shown, (scenario, dialogue) in enumerate(corpora[0].pairs(Split.TRAIN), start=1):
        for role in roles:
            view = view_of(scenario, role, with_persona=config.with_persona).after(*dialogue.turns)
            if kinds:
                view = LoggedCues(kinds, config.cue_dropout, config.seed, index).label(view, dialogue)
            if knowledge is not None:
                view = view.advised(*knowledge.logged_advice([view])[0][0])
            view, unranked = (view, frozenset[int]()) if traces is None else traces.label(view)
            rendered = form.render(view, unranked=unranked)
            console.print(masked_text(form, rendered.ids, rendered.spoken_by, rendered.labels(role)), soft_wrap=True)
            learned = sum(label != IGNORED for label in rendered.labels(role))
            console.print(f"-- {role}: {learned} of {len(rendered.ids)} tokens are learned (green)\n", style="bold")
        if shown == config.show_masks:
            break
    for task, row in examples(config.tasks, corpora, form, config.seed).items() if tasks else ():
        ids, labels = tuple(row["input_ids"]), row["labels"]
        spoken_by = tuple(None if label == IGNORED else Role.USER for label in labels)
        console.print(masked_text(form, ids, spoken_by, labels), soft_wrap=True)
        console.print(f"-- task {task}: {sum(map(bool, spoken_by))} of {len(ids)} tokens are learned (green)\n", style="bold")
    return 0


def masked_text(form: TokenFormat, ids: tuple[int, ...], spoken_by: tuple[Role | None, ...], labels: list[int]) -> Text:
    """Ids as coloured text: learned green and bold, the other side plain, persona and hand-over tags dim; a line per turn."""
    text = Text()
    run: list[int] = []
    style = ""
    for index, speaker, label in zip(ids, spoken_by, labels, strict=True):
        new_style = _LEARNED if label != IGNORED else _PERSONA if speaker is None else _READ
        starts_turn = index in (form.opening_ids(Role.USER)[0], form.opening_ids(Role.RECOMMENDER)[0])
        if new_style != style or starts_turn:
            text.append(form.decode(run), style)
            run, style = [], new_style
        if starts_turn:
            text.append("\n")
        run.append(index)
    text.append(form.decode(run), style)
    return text
