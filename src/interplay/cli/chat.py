"""`interplay chat`: a person takes one side of the conversation loop, the other is any agent."""

import asyncio
import random
import sys

from interplay.cli.pipeline import check_servers, close, limits_of
from interplay.config import ChatConfig
from interplay.corpora.corpus import Corpus
from interplay.errors import ConfigError, DataError
from interplay.simulation.dialogue import conversation_seed, converse
from interplay.simulation.model_agents import link_mentions
from interplay.simulation.specs import load_from_spec, require_recommender_for
from interplay.store import write_lines
from interplay.types import ACTIONS, Action, Catalog, Dialogue, Mention, Role, Split, Turn, View

_HELP = {
    Role.USER: "You are the user. Type what you would say; /accept TEXT takes the suggestion, /give-up TEXT ends without one.",
    Role.RECOMMENDER: (
        "You recommend. Type what you would say; write a title as [Heat (1995)], which makes it a recommendation."
    ),
}


class Person:
    """An Agent that reads its turns from the terminal."""

    name = "human"

    def __init__(self, role: Role, catalog: Catalog) -> None:
        self.role = role
        self._catalog = catalog

    def begin(self, view: View, seed: int, session: str) -> "Person":
        """One person holds one conversation."""
        return self

    async def speak(self) -> Turn:
        """Ask until something was typed; the end of the input gives up (a user) or interrupts (a recommender)."""
        while True:
            try:
                line = (await asyncio.to_thread(input, f"{self.role.value}> ")).strip()
            except EOFError:
                if self.role is Role.RECOMMENDER:
                    raise KeyboardInterrupt from None
                return Turn(role=self.role, action=Action.GIVE_UP, text="bye")
            if line:
                turn = read_line(line, self.role)
                if turn is not None:
                    return link_mentions(turn, self._catalog)
                print(f"no such action; accepted: {', '.join('/' + a.value for a in ACTIONS[self.role])}")

    def hear(self, turn: Turn) -> None:
        """Show the other side's turn."""
        print(f"{turn.role.value} [{turn.action.value}]: {turn.text}")

    def end(self) -> None:
        """Holds nothing."""


def read_line(line: str, role: Role) -> Turn | None:
    """A typed line as a Turn: "/action text", titles in square brackets. None when the action is not one of the role's.

    Without an action a line with a title recommends; otherwise a recommender's question inquires and the rest is chat; a
    user's line is feedback.
    """
    action: Action | None = None
    if line.startswith("/"):
        name, _, line = line[1:].partition(" ")
        action = next((a for a in ACTIONS[role] if a.value == name), None)
        if action is None:
            return None
        line = line.strip() or {Action.ACCEPT: "I'll take it, thanks.", Action.GIVE_UP: "Never mind."}.get(action, action.value)
    text, items = "", []
    rest = line
    while "[" in rest and "]" in rest.split("[", 1)[1]:
        before, after = rest.split("[", 1)
        title, rest = after.split("]", 1)
        text += before
        if title.strip():
            items.append(Mention(start=len(text), end=len(text) + len(title.strip())))
        text += title.strip()
    text += rest
    if action is None:
        if role is Role.USER:
            action = Action.FEEDBACK
        else:
            action = Action.RECOMMEND if items else Action.INQUIRE if text.endswith("?") else Action.CHAT
    return Turn(role=role, action=action, text=text, items=tuple(items), raw=(line,))


def chat(config: ChatConfig) -> int:
    """Talk, then say how it ended.

    Raises:
        ConfigError: not exactly one of --user and --recommender was given.
        DataError: the data directory has no scenario to play.
    """
    given = {role: spec for role, spec in ((Role.USER, config.user), (Role.RECOMMENDER, config.recommender)) if spec}
    if len(given) != 1:
        raise ConfigError("chat takes one of --user and --recommender: the side that you do not play yourself")
    ((role, spec),) = given.items()
    require_recommender_for(config, role)
    corpus = Corpus.read(config.data)
    scenarios = [s for s, _ in corpus.pairs(Split.TEST)] or corpus.scenarios
    if not scenarios:
        raise DataError(f"{config.data} holds no scenario")
    scenario = random.Random(config.seed).choice(scenarios)
    loaded = load_from_spec(
        spec,
        role,
        sampling=config.sampling,
        catalog=corpus.catalog,
        max_batch=1,
        constrained=config.constrained,
        exclude_rejected=config.exclude_rejected,
        slots=config,
    )
    person = Person(role.other, corpus.catalog)
    print(_HELP[person.role], file=sys.stderr)
    agents = {role: loaded.agent, person.role: person}

    async def talk() -> Dialogue:
        await check_servers(loaded)
        try:
            return await converse(
                scenario,
                agents[Role.USER],
                agents[Role.RECOMMENDER],
                seed=conversation_seed(config.seed, scenario, 0),
                limits=limits_of(config.max_turns, config.max_turns),
                with_persona=bool(loaded.with_persona),
            )
        finally:
            await close(loaded)

    dialogue = asyncio.run(talk())
    if dialogue.turns and dialogue.turns[-1].role is role:
        person.hear(dialogue.turns[-1])
    reason = f" ({dialogue.failure.role}: {dialogue.failure.reason})" if dialogue.failure else ""
    print(f"-- {dialogue.ending}{reason}")
    if config.out is not None:
        earlier = config.out.read_text(encoding="utf-8").splitlines() if config.out.is_file() else []
        write_lines(config.out, [*earlier, dialogue.to_json()])
        print(f"written to {config.out}")
    return 0
