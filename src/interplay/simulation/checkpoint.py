"""A trained model's directory: model and tokenizer as transformers writes them, and `interplay.json`, which says what it is.

`load_agent` turns such a directory into an Agent; nothing above this module needs to know what lies in it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from interplay.backends.backend import Backend
from interplay.config import KvCache, Sampling
from interplay.errors import CheckpointError
from interplay.formats.constraint import TurnGrammar
from interplay.simulation.cues import CueSource
from interplay.simulation.model_agents import TokenAgent, titles_of
from interplay.simulation.slots import Slots
from interplay.store import first_problem
from interplay.types import DOMAINS, Catalog, Record, Role

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from interplay.backends.local import LocalBackend
    from interplay.formats.tokens import TokenFormat

CARD = "interplay.json"


class KnowledgeCard(Record):
    """The ranker whose candidates a recommender was shown in training."""

    ranker: Path
    """Where it lay."""
    digest: str
    """Content hash of its card."""
    num_candidates: int
    """Per turn."""
    attributes: tuple[str, ...] = ()
    """Kinds of attributes that were shown beside each candidate; empty where none were."""


class CheckpointCard(Record):
    """What a checkpoint is."""

    version: int = 1
    role: Role | None
    """Whom it speaks for; None for a base that was trained on both roles and speaks for neither yet."""
    domain: str
    with_persona: bool
    """Whether the recommender's View showed the persona in training, and must show it now. True for a user."""
    notes: bool = False
    """Whether the user's view carried notes on unmet target attributes (see `formats.tokens`), and must carry them now."""
    knowledge: KnowledgeCard | None = None
    """Set when a recommender's View carried candidates, and must carry them now."""
    tasks: tuple[str, ...] = ()
    """What a user was trained on beside the next turn (`formats.tags.TASK_TAGS`); their tags are tokens of its tokenizer."""
    cues: tuple[str, ...] = ()
    """Kinds of cues that the role's View showed in training (`types.cues_for`); it works without them too."""
    reasoning: bool = False
    """Whether a recommender writes its reasoning and a ranked list before each turn (`formats.reasoning`)."""
    acts: bool = False
    """Whether turns told all of their acts in training (`Turn.acts`), so that it tells its own."""
    list_length: int = 10
    """Titles of that list."""
    base_model: str
    """What it was trained from: "tiny", a path, or a hub id."""
    data_digests: tuple[str, ...]
    """Content hashes of the corpora it was trained on."""
    package_version: str


def read_card(path: Path) -> CheckpointCard:
    """The card of a checkpoint directory.

    Raises:
        CheckpointError: the directory is missing or not a checkpoint of this toolkit.
    """
    if not path.is_dir():
        raise CheckpointError(
            f"{path} is not a directory; expected a trained model. Make one with: interplay train user|recommender"
        )
    if not (path / CARD).is_file():
        raise CheckpointError(f"{path} holds no {CARD}, so it is no model trained by interplay (was the training cut off?)")
    try:
        return CheckpointCard.model_validate_json((path / CARD).read_text(encoding="utf-8"))
    except ValidationError as error:
        raise CheckpointError(f"{path / CARD}: {first_problem(error)}") from None


def require_role(path: Path, role: Role) -> CheckpointCard:
    """The card of a checkpoint that must speak for `role`.

    Raises:
        CheckpointError: it is a checkpoint of the other role, or of none.
    """
    card = read_card(path)
    if card.role is not role:
        is_a = "a base model of both roles" if card.role is None else f"a {card.role}"
        raise CheckpointError(f"{path} is {is_a}, not a {role}; train one with: interplay train {role}")
    return card


def load_tokenizer(path: Path | str) -> "PreTrainedTokenizerFast":
    """The tokenizer at a path or hub id.

    Raises:
        CheckpointError: there is none, or it is not a fast one.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} holds no tokenizer that can be loaded ({str(error).splitlines()[0]})") from None
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise CheckpointError(f"the tokenizer of {path} is not a fast one (tokenizer.json), which the token rendering needs")
    return tokenizer


def load_form(path: Path, card: CheckpointCard) -> "TokenFormat":
    """The rendering that a checkpoint was trained with.

    Raises:
        CheckpointError: its tokenizer is missing or lacks a tag that the card asks for.
    """
    from interplay.formats.tokens import TokenFormat

    return TokenFormat(
        load_tokenizer(path),
        DOMAINS[card.domain],
        notes=card.notes,
        candidates=card.knowledge is not None,
        tasks=card.tasks,
        cues=card.cues,
        reasoning=card.reasoning,
        acts=card.acts,
    )


def load_agent(
    path: Path,
    role: Role,
    *,
    sampling: Sampling,
    catalog: Catalog | None = None,
    max_batch: int = 64,
    memory_gib: float | None = None,
    kv_cache: KvCache = "model",
    constrained: bool = True,
    exclude_rejected: bool = False,
    slots: Slots | None = None,
    cues: Sequence[CueSource] = (),
    length_tolerance: float | None = None,
    engine: Literal["local", "vllm"] = "local",
    served: "LocalBackend | None" = None,
) -> tuple[TokenAgent, CheckpointCard]:
    """An Agent that a trained model in this process speaks for.

    Args:
        path: the checkpoint.
        role: whom it must speak for.
        sampling: how its tokens are drawn.
        catalog: links the titles it writes to items; without one they stay unlinked.
        max_batch: conversations decoded together at most.
        memory_gib: for the caches of a model in this process; see LocalBackend.
        kv_cache: their type; see LocalBackend.
        constrained: hold it to the format of a turn and to titles of the catalog (without items: to any titles).
        exclude_rejected: see `ModelAgent`.
        slots: see `ModelAgent`; they must fit the card (`specs.slots_of`).
        cues: see `TokenAgent`; kinds that the card does not name are not shown.
        length_tolerance: see `TokenAgent`.
        engine: what runs the model: transformers in this process, or vLLM.
        served: an engine that serves the model already, which is then not loaded; sizes are that engine's.

    Raises:
        CheckpointError: it is missing, damaged, or of the other role.
        MissingExtra, BackendError: `engine` is vLLM, which is not installed or does not start.
        ConfigError: no turn fits into `sampling.max_new_tokens`.
    """
    card = require_role(path, role)
    form = load_form(path, card)
    backend: Backend
    if served is not None:
        backend, model_config = served, served.model.config
    elif engine == "vllm":
        from transformers import AutoConfig

        from interplay.backends.vllm import VllmBackend

        backend = VllmBackend.load(path, max_batch=max_batch)
        model_config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    else:
        from interplay.backends.local import LocalBackend

        backend = local = LocalBackend.load(path, max_batch=max_batch, memory_gib=memory_gib, kv_cache=kv_cache)
        model_config = local.model.config
    grammar: TurnGrammar | None = None
    if constrained:
        from interplay.formats.trie import load_trie

        titles = titles_of(catalog)
        trie = None if titles is None else load_trie(form, titles)
        vocab_size = model_config.get_text_config().vocab_size
        if card.reasoning:
            from interplay.formats.reasoning_constraint import ReasonedGrammar

            grammar = ReasonedGrammar(form, trie, list_length=card.list_length, vocab_size=vocab_size)
        else:
            grammar = TurnGrammar(form, role, trie, vocab_size=vocab_size)
    agent = TokenAgent(
        role,
        path.name,
        form,
        backend,
        sampling,
        catalog,
        turn_grammar=grammar,
        exclude_rejected=exclude_rejected,
        slots=slots,
        cues=cues,
        length_tolerance=length_tolerance,
    )
    return agent, card
