"""The chat rendering of a View, for instruction-tuned models and servers: a system prompt and alternating messages.

Prompt texts are the files in `prompts/`; their hash (`prompts_digest`) belongs to a Run's config.
"""

from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files
from string import Template
from typing import Literal

from interplay.formats.parsing import events_of_text, parse_turn, text_of_turn
from interplay.formats.tags import END_OF_TURN, action_tag, title_tags
from interplay.types import ACTIONS, Action, Domain, Role, Turn, View


@dataclass(slots=True, frozen=True)
class ChatMessage:
    """One message. The agent's own turns are the assistant's, the other side's are the user's."""

    role: Literal["system", "user", "assistant"]
    content: str


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
    """Renders Views to chat messages and reads replies back."""

    stop_text = (END_OF_TURN,)

    def __init__(self, domain: Domain) -> None:
        self.domain = domain

    def messages(self, view: View) -> tuple[ChatMessage, ...]:
        """The prompt for `view.role`'s next turn."""
        out = [ChatMessage("system", self._system(view))]
        if not view.turns or view.turns[0].role is view.role:
            # Chat templates want the user to speak first.
            out.append(ChatMessage("user", _prompt("opening.txt").substitute().strip()))
        for turn in view.turns:
            if turn.role is view.role:
                out.append(ChatMessage("assistant", text_of_turn(turn, self.domain)))
            else:
                out.append(ChatMessage("user", turn.text))
        return tuple(out)

    def _system(self, view: View) -> str:
        opening, closing = title_tags(self.domain)
        persona = "\n".join(
            [f"In general: {view.general_preferences}"] * bool(view.general_preferences)
            + [f"Has already seen {k.title}: {k.review}".rstrip(": ") for k in view.known_items]
            + [f"Looks for today: {', '.join(view.target_attributes)}"] * bool(view.target_attributes)
        )
        example_action = Action.FEEDBACK if view.role is Role.USER else Action.INQUIRE
        return (
            _prompt(f"{view.role.value}.txt")
            .substitute(
                noun=self.domain.noun,
                plural=self.domain.plural,
                persona=persona or "Nothing is known.",
                actions=", ".join(a.value for a in ACTIONS[view.role]),
                opening=opening,
                closing=closing,
                example_action=action_tag(example_action).strip("<>"),
            )
            .strip()
        )

    def parse(self, text: str, role: Role) -> Turn:
        """The Turn that a reply spells.

        Raises:
            FormatError: see `parsing.parse_turn`.
        """
        return parse_turn(events_of_text(text, self.domain), role, self.domain, text)
