"""Agents that a language model speaks for: over the token rendering (trained models) or the chat rendering (servers)."""

from interplay.backends.backend import Backend, Message, Request
from interplay.config import Sampling
from interplay.errors import BackendError
from interplay.formats.chat import ChatFormat
from interplay.formats.tokens import TokenFormat
from interplay.types import Catalog, Mention, Role, Turn, View, derive_seed


def link_mentions(turn: Turn, catalog: Catalog | None) -> Turn:
    """The turn with each mention linked to the catalog item its title means, where there is one."""
    if catalog is None or not turn.items:
        return turn
    items = tuple(
        Mention(start=m.start, end=m.end, item_id=item.id if (item := catalog.find(title)) else None)
        for m, title in zip(turn.items, turn.titles, strict=True)
    )
    return turn.model_copy(update={"items": items})


class TokenAgent:
    """A trained model behind a backend that takes token ids."""

    def __init__(
        self, role: Role, name: str, form: TokenFormat, backend: Backend, sampling: Sampling, catalog: Catalog | None
    ) -> None:
        self.role = role
        self.name = name
        self.form = form
        self.backend = backend
        self.sampling = sampling
        self.catalog = catalog

    def begin(self, view: View, seed: int, session: str) -> "TokenSpeaker":
        """A Speaker that keeps the conversation's ids."""
        return TokenSpeaker(self, view, seed, session)


class TokenSpeaker:
    """One side of one conversation as a growing list of ids; the model's own turns keep the ids it sampled."""

    def __init__(self, agent: TokenAgent, view: View, seed: int, session: str) -> None:
        self._agent = agent
        self._seed = seed
        self._session = session
        self._view = view
        self._ids = list(agent.form.render(view).ids)
        self._num_turns = len(view.turns)

    async def speak(self) -> Turn:
        """The model's next turn.

        Raises:
            FormatError, ContextOverflow, BackendError: see Speaker.
        """
        agent = self._agent
        prompt = (*self._ids, *agent.form.opening_ids(agent.role))
        completion = await agent.backend.complete(
            Request(
                prompt=prompt,
                sampling=agent.sampling,
                seed=derive_seed(self._seed, self._num_turns),
                session=self._session,
                stop_ids=(agent.form.end_of_turn,),
            )
        )
        if completion.ids is None:
            raise BackendError(f"{agent.backend.name} returned no token ids; a trained model needs a backend that does")
        turn = link_mentions(agent.form.parse(completion.ids, agent.role), agent.catalog)
        self._ids = [*prompt, *completion.ids]
        self._num_turns += 1
        return turn

    def hear(self, turn: Turn) -> None:
        """Append the other side's turn."""
        form = self._agent.form
        self._ids += form.opening_ids(turn.role) + form.turn_ids(turn) + form.note_ids(self._view, turn)
        self._num_turns += 1

    def end(self) -> None:
        """Let the backend drop the conversation's cache."""
        self._agent.backend.release(self._session)


class ChatAgent:
    """An instruction-tuned model behind a backend that takes chat messages: the zero-shot baseline of either role."""

    def __init__(
        self, role: Role, name: str, form: ChatFormat, backend: Backend, sampling: Sampling, catalog: Catalog | None
    ) -> None:
        self.role = role
        self.name = name
        self.form = form
        self.backend = backend
        self.sampling = sampling
        self.catalog = catalog

    def begin(self, view: View, seed: int, session: str) -> "ChatSpeaker":
        """A Speaker that keeps the conversation's View."""
        return ChatSpeaker(self, view, seed, session)


class ChatSpeaker:
    """One side of one conversation as a View that grows."""

    def __init__(self, agent: ChatAgent, view: View, seed: int, session: str) -> None:
        self._agent = agent
        self._view = view
        self._seed = seed
        self._session = session

    async def speak(self) -> Turn:
        """The model's next turn.

        Raises:
            FormatError, ContextOverflow, BackendError: see Speaker.
        """
        agent = self._agent
        completion = await agent.backend.complete(
            Request(
                prompt=tuple(Message(m.role, m.content) for m in agent.form.messages(self._view)),
                sampling=agent.sampling,
                seed=derive_seed(self._seed, len(self._view.turns)),
                session=self._session,
                stop_text=agent.form.stop_text,
            )
        )
        turn = link_mentions(agent.form.parse(completion.text, agent.role), agent.catalog)
        self._view = self._view.after(turn)
        return turn

    def hear(self, turn: Turn) -> None:
        """Add the other side's turn to the View."""
        self._view = self._view.after(turn)

    def end(self) -> None:
        """Let the backend drop the conversation's cache."""
        self._agent.backend.release(self._session)
