"""Agents that a language model speaks for: over the token rendering (trained models) or the chat rendering (servers)."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from itertools import groupby, islice
from typing import Any, Generic, TypeVar

from interplay.backends.backend import Backend, Completion, Message, Request, Scorer
from interplay.config import Sampling
from interplay.errors import BackendError, ContextOverflow, FormatError
from interplay.formats.chat import PROMPTS, ChatFormat, default_prompt
from interplay.formats.constraint import TurnConstraint, TurnGrammar, require_room
from interplay.formats.gbnf import MOST_TITLES, gbnf
from interplay.formats.reasoning_constraint import ReasonedGrammar
from interplay.formats.tokens import TokenFormat
from interplay.simulation.cues import LENGTH, CueSource, begin_cues, next_cue, words_around
from interplay.simulation.slots import Slots
from interplay.types import Action, Advice, Catalog, Listed, Mention, Parts, Role, Turn, View, derive_seed

MOST_RETRIES = 2
"""An answer that can't be read is asked for again this often at most (constrained agents only)."""

FormT = TypeVar("FormT", TokenFormat, ChatFormat)
AgentT = TypeVar("AgentT", bound="ModelAgent[Any]")


def link_mentions(turn: Turn, catalog: Catalog | None) -> Turn:
    """The turn with each mention, and each title of a ranked list, linked to the catalog item it means, where there is one."""
    if catalog is None:
        return turn
    if turn.reasoning is not None:
        found = ((listed.title, catalog.find(listed.title)) for listed in turn.reasoning.ranking)
        ranking = tuple(Listed(title=title, item_id=None if item is None else item.id) for title, item in found)
        turn = turn.model_copy(update={"reasoning": turn.reasoning.model_copy(update={"ranking": ranking})})
    if not turn.items:
        return turn
    items = tuple(
        Mention(start=m.start, end=m.end, item_id=item.id if (item := catalog.find(title)) else None)
        for m, title in zip(turn.items, turn.titles, strict=True)
    )
    return turn.model_copy(update={"items": items})


def titles_of(catalog: Catalog | None) -> tuple[str, ...] | None:
    """What may be named under constrained decoding: the label of every item; None (any title) where there is no item."""
    return tuple(item.label for item in catalog) if catalog is not None and len(catalog) else None


class ModelAgent(Generic[FormT]):
    """What agents of both renderings have in common.

    Args:
        role: whom it speaks for.
        name: written into every Dialogue.
        form: renders Views and reads answers back.
        backend: answers.
        sampling: how tokens are drawn.
        catalog: links the titles that are written, and says which may be.
        constrained: ask backends for turns that can be read and name titles of the catalog only; an answer that can't be
            read all the same is asked for again with another seed, up to MOST_RETRIES times.
        exclude_rejected: whether a constrained recommender may not name again what the user has turned down.
        slots: knowledge and guidance of a recommender.

    Attributes:
        retries: answers that could not be read and were asked for again, by `FormatError.reason`.
    """

    def __init__(
        self,
        role: Role,
        name: str,
        form: FormT,
        backend: Backend,
        sampling: Sampling,
        catalog: Catalog | None,
        *,
        constrained: bool = False,
        exclude_rejected: bool = False,
        slots: Slots | None = None,
    ) -> None:
        self.role = role
        self.name = name
        self.form: FormT = form
        self.backend = backend
        self.sampling = sampling
        self.catalog = catalog
        self.constrained = constrained
        self.exclude_rejected = exclude_rejected
        self.slots = slots
        self.retries: Counter[str] = Counter()
        self.titles = titles_of(catalog)
        self._grammar = gbnf(role, form.domain, self.titles, acts=form.acts) if constrained else None
        # A trained model is held to its format token by token.
        reasons = isinstance(form, ChatFormat) and form.reasoning and role is Role.RECOMMENDER
        self._list_length = form.list_length if isinstance(form, ChatFormat) and reasons else 0

    def limited_to(self, advice: Advice | None) -> tuple[str, ...] | None:
        """The candidates, where nothing else can be named; None where anything can."""
        return advice.candidates if advice is not None and self.slots is not None and self.slots.only_candidates else None

    def grammar(self, rejected: Collection[str], advice: Advice | None = None) -> str | None:
        """The grammar of a turn without `rejected`, held to the advice; None when not constrained."""
        if self._grammar is None:
            return None
        action = None if advice is None else advice.action
        only = self.limited_to(advice)
        if self._list_length:
            titles = self.titles if only is None else only
            left = titles if titles is None else [title for title in titles if title not in rejected]
            candidates = () if advice is None else advice.candidates
            return gbnf(self.role, self.form.domain, left, action, list_length=self._list_length, candidates=candidates)
        titles = self.titles if only is None else only
        is_excluding = bool(rejected) and titles is not None and len(titles) <= MOST_TITLES
        if action is None and only is None and not is_excluding:
            return self._grammar
        left = titles if titles is None else [title for title in titles if title not in rejected]
        return gbnf(self.role, self.form.domain, left if is_excluding else titles, action, acts=self.form.acts)

    async def ask(self, request: Request, read: Callable[[Completion], Turn]) -> tuple[Turn, Completion]:
        """An answer as a Turn with its mentions linked.

        Args:
            request: what is asked; its seed is that of the first attempt.
            read: the Turn of an answer; raises FormatError.

        Raises:
            FormatError, ContextOverflow, BackendError: see Speaker.
        """
        # Without chance a second answer would be the first.
        num_retries = MOST_RETRIES if self.constrained and request.sampling.temperature > 0 else 0
        first_seed = request.seed
        for attempt in range(num_retries + 1):
            if attempt:
                request = replace(request, seed=derive_seed(first_seed, "retry", attempt))
            completion = await self.backend.complete(request)
            try:
                return link_mentions(read(completion), self.catalog), completion
            except FormatError as error:
                if attempt == num_retries:
                    raise
                self.retries[error.reason] += 1
        raise AssertionError("the last attempt returns or raises")


class Rejected:
    """What the user has turned down so far: titles of the catalog that a user's feedback followed.

    An offer is every title of the recommender's latest turn that names any; feedback that does not accept turns it down.
    """

    def __init__(self, catalog: Catalog | None, turns: Iterable[Turn] = ()) -> None:
        self.titles: set[str] = set()
        """As written in conversation (`Item.label`)."""
        self._catalog = catalog
        self._offer: set[str] = set()
        for turn in turns:
            self.take(turn)

    def take(self, turn: Turn) -> None:
        """Take in the next turn, of either side."""
        if turn.role is Role.USER:
            if turn.action is Action.FEEDBACK:
                self.titles |= self._offer
        elif turn.items and self._catalog is not None:
            catalog = self._catalog
            items = (catalog.get(m.item_id) or catalog.find(t) for t, m in zip(turn.titles, turn.items, strict=True))
            self._offer = {item.label for item in items if item is not None}


class TokenAgent(ModelAgent[TokenFormat]):
    """A trained model behind a backend that takes token ids.

    Args:
        role: see ModelAgent, as the rest.
        name: see there.
        form: see there.
        backend: see there.
        sampling: see there.
        catalog: see there.
        turn_grammar: what the model may say, token by token; None: anything.
        exclude_rejected: see there.
        slots: see there. An action is asked for, and titles are limited, by `turn_grammar` alone.
        cues: what tells the model of itself and of each turn before it speaks.
        length_tolerance: with `turn_grammar`, holds turns to the lengths that `cues` ask for, give or take this share of the
            words (`words_around`); None: the model ends them as it likes.

    Raises:
        ConfigError: with `turn_grammar`: no turn fits into `sampling.max_new_tokens`.
    """

    def __init__(
        self,
        role: Role,
        name: str,
        form: TokenFormat,
        backend: Backend,
        sampling: Sampling,
        catalog: Catalog | None,
        *,
        turn_grammar: TurnGrammar | None = None,
        exclude_rejected: bool = False,
        slots: Slots | None = None,
        cues: Sequence[CueSource] = (),
        length_tolerance: float | None = None,
    ) -> None:
        super().__init__(
            role,
            name,
            form,
            backend,
            sampling,
            catalog,
            constrained=(is_constrained := turn_grammar is not None),
            exclude_rejected=exclude_rejected,
            slots=slots,
        )
        if is_constrained:
            require_room(sampling.max_new_tokens)
        self.turn_grammar = turn_grammar
        self.cues = tuple(cues)
        self.length_tolerance = length_tolerance
        self._constraint = None if turn_grammar is None else turn_grammar.constraint()

    def constraint(self, rejected: Collection[str], advice: Advice | None = None, parts: Parts = ()) -> TurnConstraint | None:
        """What a turn without `rejected` that is held to the advice may be made of; None when not constrained.

        Args:
            rejected: titles that may not be named.
            advice: what the slots say of the turn.
            parts: its cues, for its length.
        """
        action = None if advice is None else advice.action
        only = self.limited_to(advice)
        length, tolerance = dict(parts).get(LENGTH), self.length_tolerance
        num_words = None if length is None or tolerance is None else words_around(int(length), tolerance)
        excluding = sorted(rejected)
        if isinstance(self.turn_grammar, ReasonedGrammar) and advice is not None:
            return self.turn_grammar.constraint(
                only=only,
                excluding=excluding,
                action=action,
                num_words=num_words,
                candidates=advice.candidates,
                only_first=self.slots is not None and self.slots.only_first,
            )
        if self.turn_grammar is None or not (rejected or action or only is not None or num_words):
            return self._constraint
        return self.turn_grammar.constraint(only=only, excluding=excluding, action=action, num_words=num_words)

    async def logprobs(self, view: View) -> list[tuple[float, ...] | None]:
        """How likely the model finds the turns of its role that the View holds, each given everything before it.

        What it would say is not asked, and no constraint holds: these are the probabilities that training raises.

        Args:
            view: of this role, with the turns of both sides.

        Returns:
            For each turn of the role, in order, the natural log-probability of its tokens, from `<action>` to the
            end-of-turn token; None where the backend does not tell (see `backends.backend.Scorer`) and for turns that the
            model's context does not hold.
        """
        view = view if self.slots is None else self.slots.advise_past(view)
        rendered = self.form.render(view)
        thoughts = iter([len(self.form.reasoning_ids(turn)) for turn in view.turns if turn.role is self.role])
        spans: list[tuple[int, int]] = []
        start = 0
        for who, run in groupby(rendered.spoken_by):
            end = start + sum(1 for _ in run)
            if who is self.role:
                spans.append((start + next(thoughts), end))
            start = end
        if not isinstance(self.backend, Scorer):
            return [None] * len(spans)
        fitting = len(spans)
        while fitting:
            last = spans[fitting - 1][1]
            places = [place for first, end in spans[:fitting] for place in range(first, end)]
            try:
                found = iter(await self.backend.logprobs(rendered.ids[:last], places))
            except ContextOverflow:
                fitting -= 1
                continue
            told = [tuple(islice(found, end - first)) for first, end in spans[:fitting]]
            return [*told, *[None] * (len(spans) - fitting)]
        return [None] * len(spans)

    def begin(self, view: View, seed: int, session: str) -> "TokenSpeaker":
        """A Speaker that keeps the conversation's ids."""
        return TokenSpeaker(self, view, seed, session)


class _ModelSpeaker(Generic[AgentT]):
    """What Speakers of both renderings have in common."""

    def __init__(self, agent: AgentT, view: View, seed: int, session: str) -> None:
        self._agent = agent
        self._view = view
        self._seed = seed
        self._session = session
        self._rejected = Rejected(agent.catalog if self._excludes else None, view.turns)

    def _advised(self) -> Advice | None:
        """What the slots say of the next turn; the View holds what the model is shown of it. None without slots."""
        slots = self._agent.slots
        if slots is None:
            return None
        advice = slots.advise(self._view, self._seed)
        self._view = self._view.advised(slots.shown(advice))
        return advice

    @property
    def _excludes(self) -> bool:
        agent = self._agent
        return agent.constrained and agent.exclude_rejected and agent.role is Role.RECOMMENDER

    def end(self) -> None:
        """Let the backend drop the conversation's cache."""
        self._agent.backend.release(self._session)


class TokenSpeaker(_ModelSpeaker[TokenAgent]):
    """One side of one conversation as a growing list of ids; the model's own turns keep the ids it sampled."""

    def __init__(self, agent: TokenAgent, view: View, seed: int, session: str) -> None:
        view = view if agent.slots is None else agent.slots.advise_past(view)
        super().__init__(agent, begin_cues(agent.cues, view, seed), seed, session)
        self._ids = list(agent.form.render(self._view).ids)
        self._num_turns = len(view.turns)

    @property
    def traits(self) -> Parts:
        """See `agents.TRAITS`."""
        return self._view.traits

    async def speak(self) -> Turn:
        """The model's next turn.

        Raises:
            FormatError, ContextOverflow, BackendError: see Speaker.
        """
        agent = self._agent
        advice = self._advised()
        parts = next_cue(agent.cues, self._view, self._seed).parts if agent.cues else ()
        shown = self._view.advice[-1] if advice is not None else None
        prompt = (*self._ids, *agent.form.advice_ids(shown), *agent.form.cue_ids(parts), *agent.form.opening_ids(agent.role))
        request = Request(
            prompt=prompt,
            sampling=agent.sampling,
            seed=derive_seed(self._seed, self._num_turns),
            session=self._session,
            stop_ids=agent.form.stop_ids,
            constraint=agent.constraint(self._rejected.titles, advice, parts),
            grammar=agent.grammar(self._rejected.titles, advice),
        )
        turn, completion = await agent.ask(request, lambda answer: agent.form.parse(self._ids_of(answer), agent.role, shown))
        self._ids = [*prompt, *self._ids_of(completion)]
        if parts:
            turn = turn.model_copy(update={"cues": parts})
        self._take(turn)
        return turn

    def _ids_of(self, completion: Completion) -> tuple[int, ...]:
        if completion.ids is None:
            name = self._agent.backend.name
            raise BackendError(f"{name} returned no token ids; a trained model needs a backend that does")
        return completion.ids

    def hear(self, turn: Turn) -> None:
        """Append the other side's turn."""
        form = self._agent.form
        self._ids += form.opening_ids(turn.role) + form.turn_ids(turn) + form.note_ids(self._view, turn)
        self._take(turn)

    def _take(self, turn: Turn) -> None:
        self._num_turns += 1
        if self._agent.slots is not None or self._agent.cues:  # nobody else looks at the turns of the View: the ids hold them
            self._view = self._view.after(turn)
        self._rejected.take(turn)


class ChatAgent(ModelAgent[ChatFormat]):
    """An instruction-tuned model behind a backend that takes chat messages: the zero-shot baseline of either role."""

    @property
    def told_target(self) -> bool:
        """Whether its prompt tells the target: see `agents.TOLD_TARGET`."""
        return PROMPTS[self.role][self.form.prompt or default_prompt(self.role)].told_targets

    def begin(self, view: View, seed: int, session: str) -> "ChatSpeaker":
        """A Speaker that keeps the conversation's View."""
        return ChatSpeaker(self, view, seed, session)


class ChatSpeaker(_ModelSpeaker[ChatAgent]):
    """One side of one conversation as a View that grows."""

    async def speak(self) -> Turn:
        """The model's next turn.

        Raises:
            FormatError, ContextOverflow, BackendError: see Speaker.
        """
        agent = self._agent
        advice = self._advised()
        request = Request(
            prompt=tuple(Message(m.role, m.content) for m in agent.form.messages(self._view)),
            sampling=agent.sampling,
            seed=derive_seed(self._seed, len(self._view.turns)),
            session=self._session,
            stop_text=agent.form.stop_text,
            grammar=agent.grammar(self._rejected.titles, advice),
        )
        turn, _ = await agent.ask(request, lambda answer: agent.form.parse(answer.text, agent.role, advice))
        self._view = self._view.after(turn)
        self._rejected.take(turn)
        return turn

    def hear(self, turn: Turn) -> None:
        """Add the other side's turn to the View."""
        self._view = self._view.after(turn)
        self._rejected.take(turn)
