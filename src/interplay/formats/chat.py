"""The chat rendering of a View, for instruction-tuned models and servers: a system prompt and alternating messages.

Prompt texts are the files in `prompts/`, in our own words; `PROMPTS` says which paper each rebuilds. Their hash
(`prompts_digest`) belongs to a Run's config.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files
from string import Template
from typing import Literal, NamedTuple

from interplay.formats.parsing import events_of_text, parse_turn, text_of_turn
from interplay.formats.reasoning import parse_reasoned_turn, reasoned_events_of_text, text_of_reasoned_turn
from interplay.formats.tags import END_OF_TURN, action_tag, title_tags
from interplay.types import ACTIONS, Action, Advice, Domain, Role, Turn, View


@dataclass(slots=True, frozen=True)
class ChatMessage:
    """One message. The agent's own turns are the assistant's, the other side's are the user's."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(slots=True, frozen=True)
class ChatPrompt:
    """A way to instruct a model to play a role: which text, and what of the View it is shown."""

    file: str
    """In `prompts/`."""
    source: str
    """The paper whose setting it rebuilds."""
    general_preferences: bool = False
    known_items: bool = False
    target_attributes: bool = False
    told_targets: bool = False
    """The title of the target: leakage by construction."""
    reasoning: bool = False
    """The model writes its reasoning and a ranked list before each turn (`formats.reasoning`)."""


PROMPTS: dict[Role, dict[str, ChatPrompt]] = {
    Role.USER: {
        "reference-free": ChatPrompt(
            "user.txt",
            "Interplay (arXiv 2603.18573), section 3: persona and target attributes, no title",
            general_preferences=True,
            known_items=True,
            target_attributes=True,
        ),
        "ievalm": ChatPrompt(
            "user-ievalm.txt",
            "iEvaLM (arXiv 2305.13112), free-form chat: the user is told the titles of the targets",
            told_targets=True,
        ),
        "pepper": ChatPrompt(
            "user-pepper.txt",
            "PEPPER (arXiv 2411.16160): liked items, reviews and preferences, no target of any kind",
            general_preferences=True,
            known_items=True,
        ),
        "attributes-only": ChatPrompt(
            "user-attributes-only.txt",
            "SimpleUserSim (arXiv 2403.16416): the target's attributes and nothing else",
            target_attributes=True,
        ),
    },
    Role.RECOMMENDER: {
        "standard": ChatPrompt(
            "recommender.txt",
            "Interplay (arXiv 2603.18573), the zero-shot recommender",
            general_preferences=True,
            known_items=True,
        ),
        "reasoning": ChatPrompt(
            "recommender-reasoning.txt",
            "SMTPO (arXiv 2604.03671): five stages of reasoning and a ranked list before each reply; wording ours",
            general_preferences=True,
            known_items=True,
            reasoning=True,
        ),
    },
}
"""The prompts of each role by name; the first is the default."""


LIST_LENGTH = 10
"""Titles of a ranked list, unless something else is asked for (SMTPO: ten)."""


def default_prompt(role: Role) -> str:
    """Name of the prompt that a role has when none is chosen."""
    return next(iter(PROMPTS[role]))


class Example(NamedTuple):
    """A moment of a log, shown to a model as how others spoke in its place."""

    before: tuple[Turn, ...]
    """The last turns before it."""
    reply: Turn


@cache
def _prompt(name: str) -> Template:
    return Template(files("interplay.formats").joinpath("prompts", name).read_text(encoding="utf-8"))


def prompts_digest() -> str:
    """Hash over every prompt file: the first 16 hex digits of SHA-256."""
    folder = files("interplay.formats").joinpath("prompts")
    digest = sha256()
    for file in sorted(folder.iterdir(), key=lambda f: f.name):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


class ChatFormat:
    """Renders Views to chat messages and reads replies back.

    Args:
        domain: of the Views.
        prompt: name of a prompt of the role that will speak (`PROMPTS`); None: the role's default.
        examples: gives moments of logs for a View, shown at the end of the system prompt. A user is shown them without
            titles, since any of these could be the one that is hidden from it.
        list_length: titles that a recommender that reasons is asked to rank.
    """

    stop_text = (END_OF_TURN,)
    acts = False
    """Whether a turn may be asked to tell all of its acts; no prompt does, and what is told all the same is read."""

    def __init__(
        self,
        domain: Domain,
        prompt: str | None = None,
        *,
        examples: Callable[[View], Sequence[Example]] | None = None,
        list_length: int = LIST_LENGTH,
    ) -> None:
        self.domain = domain
        self.list_length = list_length
        self.prompt = prompt
        self.examples = examples

    @property
    def reasoning(self) -> bool:
        """Whether a recommender reasons before each turn."""
        prompt = PROMPTS[Role.RECOMMENDER].get(self.prompt or "")
        return prompt is not None and prompt.reasoning

    def messages(self, view: View) -> tuple[ChatMessage, ...]:
        """The prompt for `view.role`'s next turn."""
        system = self._system(view)
        if self.examples is not None:
            shown = (self._example(example, view.role) for example in self.examples(view))
            system = "\n\n".join([system, _prompt("examples.txt").substitute().strip(), *shown])
        out = [ChatMessage("system", system)]
        if not view.turns or view.turns[0].role is view.role:
            # Chat templates want the user to speak first.
            out.append(ChatMessage("user", _prompt("opening.txt").substitute().strip()))
        for turn in view.turns:
            if turn.role is view.role:
                spell = text_of_reasoned_turn if self.reasoning else text_of_turn
                out.append(ChatMessage("assistant", spell(turn, self.domain)))
            else:
                out.append(ChatMessage("user", turn.text))
        advice = self._advice(view)
        if advice:
            # Behind what was said last: everything before it stays as it was, so a server's cache of it stays valid.
            last = out[-1] if out[-1].role == "user" else ChatMessage("user", "")
            kept = out[:-1] if out[-1].role == "user" else out
            out = [*kept, ChatMessage("user", f"{last.content}\n\n{advice}".strip())]
        return tuple(out)

    def _advice(self, view: View) -> str:
        """What the View's slots say of the turn to come, in words."""
        parts = []
        for advice in view.advice:
            if advice.turn == len(view.turns):
                if advice.candidates:
                    shown = advice.attributes or ((),) * len(advice.candidates)
                    pairs = zip(advice.candidates, shown, strict=True)
                    lines = "\n".join(f"- {title}: {', '.join(values)}" if values else f"- {title}" for title, values in pairs)
                    parts.append(_prompt("candidates.txt").substitute(plural=self.domain.plural, candidates=lines).strip())
                if advice.action is not None:
                    parts.append(_prompt("guidance.txt").substitute(action=advice.action.value).strip())
        return "\n".join(parts)

    def _example(self, example: Example, role: Role) -> str:
        turns = [*example.before, example.reply]
        if role is Role.USER:
            turns = [_without_titles(turn, f"(a {self.domain.noun})") for turn in turns]
        *before, reply = turns
        lines = [f"{'You' if turn.role is role else 'The other'}: {turn.text}" for turn in before]
        return "\n".join([*lines, text_of_turn(reply, self.domain)])

    def _system(self, view: View) -> str:
        opening, closing = title_tags(self.domain)
        prompt = PROMPTS[view.role][self.prompt or default_prompt(view.role)]
        lines = []
        if prompt.told_targets:
            lines += [f"Wants: {title}" for title in view.told_targets]
        if prompt.general_preferences and view.general_preferences:
            lines.append(f"In general: {view.general_preferences}")
        if prompt.known_items:
            lines += [f"Has already seen {k.title}: {k.review}".rstrip(": ") for k in view.known_items]
        if prompt.target_attributes and view.target_attributes:
            lines.append(f"Looks for today: {', '.join(view.target_attributes)}")
        persona = "\n".join(lines)
        example_action = Action.FEEDBACK if view.role is Role.USER else Action.INQUIRE
        return (
            _prompt(prompt.file)
            .substitute(
                noun=self.domain.noun,
                plural=self.domain.plural,
                persona=persona or "Nothing is known.",
                actions=", ".join(a.value for a in ACTIONS[view.role]),
                opening=opening,
                closing=closing,
                example_action=action_tag(example_action).strip("<>"),
                list_length=self.list_length,
            )
            .strip()
        )

    def parse(self, text: str, role: Role, advice: Advice | None = None) -> Turn:
        """The Turn that a reply spells.

        Args:
            text: the reply.
            role: who spoke.
            advice: what a recommender that reasons was told for this turn; its candidates are kept in the reasoning.

        Raises:
            FormatError: see `parsing.parse_turn` and, of a recommender that reasons, `reasoning.parse_reasoning`.
        """
        if self.reasoning and role is Role.RECOMMENDER:
            events = reasoned_events_of_text(text, self.domain)
            return parse_reasoned_turn(events, role, self.domain, text, () if advice is None else advice.candidates)
        return parse_turn(events_of_text(text, self.domain), role, self.domain, text)


def _without_titles(turn: Turn, stand_in: str) -> Turn:
    """The turn with a stand-in for each of its titles."""
    text, at = "", 0
    for mention in turn.items:
        text += turn.text[at : mention.start] + stand_in
        at = mention.end
    return turn.model_copy(update={"text": text + turn.text[at:], "items": ()})
