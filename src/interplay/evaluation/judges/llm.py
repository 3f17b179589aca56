"""The LLM judge: a chat model grades conversations, one question for the whole and one for each recommender turn.

Answers are asked for as JSON, under a grammar where the server takes one. What can't be read is asked for once more with
a reminder; what is still missing then is None and counted, never a grade. Prompts are the files in `prompts/`.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files
from string import Template
from typing import Literal

from pydantic import Field

from interplay.backends.backend import Backend, Message, Request
from interplay.config import Sampling
from interplay.corpora.talks import Line, Talk
from interplay.errors import BackendError, ContextOverflow
from interplay.evaluation.judges.aspects import ASPECTS, CRITERIA, Aspect
from interplay.evaluation.judges.verdicts import Verdict
from interplay.types import Record, Role, derive_seed

Level = Literal["both", "dialogue", "turn"]
"""What is graded: whole conversations, recommender turns, or both."""

SAMPLING = Sampling(temperature=0.0, max_new_tokens=120)
"""Room for the JSON of an answer; no chance, so that one judge gives one grade."""

Choice = Literal["first", "second", "tie"]
_CHOICES: dict[str, Choice] = {"1": "first", "2": "second", "tie": "tie"}
_NAMES = {Role.USER: "User", Role.RECOMMENDER: "Recommender"}


@cache
def _prompt(name: str) -> Template:
    return Template(files("interplay.evaluation.judges").joinpath("prompts", name).read_text(encoding="utf-8"))


def prompts_digest() -> str:
    """Hash over prompts, aspects and criteria: the first 16 hex digits of SHA-256. It belongs to a judge's fingerprint."""
    digest = sha256(repr((ASPECTS, CRITERIA)).encode())
    for file in sorted(files("interplay.evaluation.judges").joinpath("prompts").iterdir(), key=lambda f: f.name):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def transcript(lines: Sequence[Line]) -> str:
    """The conversation as the judge reads it: one line per turn."""
    return "\n".join(f"{_NAMES[line.role]}: {line.text}" for line in lines)


# ---- questions and answers -------------------------------------------------------------------------------------------


@dataclass(slots=True, frozen=True)
class Answers:
    """What was read out of the answers to one question."""

    values: dict[str, str | None]
    """Each thing asked for, as written; None where it could not be read."""
    failures: Counter[str]
    """See `verdicts.FAILURES`."""
    num_retried: int = 0
    reason: str = ""
    """Of a server that failed."""


def answer_grammar(options: Mapping[str, Sequence[str]]) -> str:
    """A GBNF grammar of one JSON object with each name and one of its options, in order; digits are written bare."""
    rules = [f'"\\"{name}\\": " ({" | ".join(_literal(o) for o in allowed)})' for name, allowed in options.items()]
    return 'root ::= "{" ' + ' ", " '.join(rules) + ' "}"\n'


def _literal(option: str) -> str:
    return f'"{option}"' if option.isdigit() else f'"\\"{option}\\""'


def read_answer(text: str, options: Mapping[str, Sequence[str]]) -> dict[str, str | None]:
    """What an answer says of each name; None where it says nothing, or nothing that was asked for.

    The first JSON object in the text that holds one of the names counts; a model that writes "name: 2" on lines instead is
    understood too. A name that is given two different values is not.

    >>> read_answer('Sure! {"relevance": 3}', {"relevance": "0123", "interestingness": "012"})
    {'relevance': '3', 'interestingness': None}
    >>> read_answer("I liked it a lot.", {"relevance": "0123"})
    {'relevance': None}
    """
    out: dict[str, str | None] = dict.fromkeys(options)
    found: dict[str, object] = {}
    for start in (m.start() for m in re.finditer(r"\{", text)):
        try:
            value, _ = json.JSONDecoder(object_pairs_hook=_once).raw_decode(text, start)
        except ValueError:
            continue
        if isinstance(value, dict) and value.keys() & options.keys():
            found = value
            break
    for name, allowed in options.items():
        if found:
            value = found.get(name)
            written = [] if value is None or isinstance(value, bool) else [str(value).strip().lower()]
        else:
            spelled = re.escape(name).replace("_", "[ _-]")
            written = [m.group(1).lower() for m in re.finditer(rf"\b{spelled}\W*[:=]\W*(\w+(?:\.0+\b)?)", text, re.IGNORECASE)]
        values = {v.removesuffix(".0") for v in written}
        if len(values) == 1 and (value := values.pop()) in allowed:
            out[name] = str(value)
    return out


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object; a name that is given two different values has none."""
    out: dict[str, object] = {}
    for name, value in pairs:
        out[name] = None if name in out and out[name] != value else value
    return out


async def ask(
    backend: Backend,
    prompt: str,
    options: Mapping[str, Sequence[str]],
    *,
    seed: int,
    session: str,
    sampling: Sampling = SAMPLING,
) -> Answers:
    """Put one question; once more, with a reminder, when the answer leaves something open.

    Faults of the server and prompts that are too long are counted, not raised.
    """
    messages = [Message("user", prompt)]
    values: dict[str, str | None] = dict.fromkeys(options)
    num_retried = 0
    try:
        for attempt in range(2):
            request = Request(tuple(messages), sampling, derive_seed(seed, attempt), session, grammar=answer_grammar(options))
            text = (await backend.complete(request)).text
            read = read_answer(text, options)
            values = {name: values[name] or read[name] for name in options}
            missing = [name for name, value in values.items() if value is None]
            if not missing:
                break
            if attempt == 0:
                num_retried = 1
                reminder = _prompt("again.txt").substitute(example=_example(options)).strip()
                # An empty message is refused by some chat templates.
                messages += [Message("assistant", text.strip() or "..."), Message("user", reminder)]
    except ContextOverflow:
        # With the reminder it may be too long where the question alone was not: what was read before stands.
        if not num_retried:
            return Answers(values, Counter(too_long=1))
    except BackendError as error:
        return Answers(dict.fromkeys(options), Counter(server=1), num_retried, str(error))
    finally:
        backend.release(session)
    missing = [name for name, value in values.items() if value is None]
    return Answers(values, Counter(unparsable=len(missing)) if missing else Counter(), num_retried)


def _example(options: Mapping[str, Sequence[str]]) -> str:
    """The form of an answer, for the prompt: {"relevance": 0|1|2|3}."""
    written = {name: "|".join(o if o.isdigit() else json.dumps(o) for o in allowed) for name, allowed in options.items()}
    return "{" + ", ".join(f'"{name}": {allowed}' for name, allowed in written.items()) + "}"


def _scale(aspect: Aspect) -> str:
    grades = "; ".join(f"{grade} = {meaning}" for grade, meaning in enumerate(aspect.grades))
    return f"- {aspect.name}: {aspect.question} ({grades})"


def _options(aspects: Sequence[Aspect]) -> dict[str, tuple[str, ...]]:
    return {a.name: tuple(str(g) for g in range(len(a.grades))) for a in aspects}


# ---- one conversation ------------------------------------------------------------------------------------------------


class LlmJudge:
    """Grades conversations by FACE's aspects through a chat model.

    Args:
        backend: takes chat messages.
        name: how its scores call it.
        level: what is graded.
    """

    def __init__(self, backend: Backend, name: str, *, level: Level = "both") -> None:
        self.backend = backend
        self.name = name
        self.level = level
        self.fingerprint = f"{name} prompts {prompts_digest()}"

    async def judge(self, talk: Talk, seed: int) -> Verdict:
        """The verdict on one conversation; what can't be graded is None and counted."""
        whole = [a for a in ASPECTS if not a.of_turns] if self.level != "turn" else []
        of_turns = [a for a in ASPECTS if a.of_turns] if self.level != "dialogue" else []
        places = [k for k, line in enumerate(talk.lines) if line.role is Role.RECOMMENDER]
        if not places:
            return Verdict(id=talk.id, scores={a.name: None for a in whole}, failures={"no_reply": 1})
        failures: Counter[str] = Counter()
        reasons: list[str] = []
        num_retried = 0
        scores: dict[str, float | None] = {}
        turn_scores: dict[str, list[float | None]] = {a.name: [] for a in of_turns}

        async def put(prompt: str, aspects: Sequence[Aspect], session: str, part: int) -> dict[str, float | None]:
            nonlocal num_retried
            found = await ask(self.backend, prompt, _options(aspects), seed=derive_seed(seed, talk.id, part), session=session)
            failures.update(found.failures)
            num_retried += found.num_retried
            if found.reason:
                reasons.append(found.reason)
            return {name: None if value is None else float(value) for name, value in found.values.items()}

        if whole:
            prompt = _prompt("dialogue.txt").substitute(
                transcript=transcript(talk.lines), aspects="\n".join(map(_scale, whole)), example=_example(_options(whole))
            )
            scores = await put(prompt, whole, f"judge.{talk.id}", 0)
        for number, place in enumerate(places if of_turns else (), start=1):
            after = talk.lines[place + 1 : place + 2]
            prompt = _prompt("turn.txt").substitute(
                before=transcript(talk.lines[:place]) or "(nothing was said before)",
                reply=talk.lines[place].text,
                after=transcript(after) or "(the conversation ends here)",
                aspects="\n".join(map(_scale, of_turns)),
                example=_example(_options(of_turns)),
            )
            grades = await put(prompt, of_turns, f"judge.{talk.id}.{number}", number)
            for name, grade in grades.items():
                turn_scores[name].append(grade)
        return Verdict(
            id=talk.id,
            scores=scores,
            turn_scores={name: tuple(grades) for name, grades in turn_scores.items()},
            failures=dict(failures),
            num_retried=num_retried,
            reason=reasons[0] if reasons else "",
        )


# ---- two conversations -----------------------------------------------------------------------------------------------


class PairVerdict(Record):
    """Two conversations compared: one line of `verdicts.jsonl`."""

    id: str
    """Of both: they began from one scenario."""
    choices: dict[str, Choice | None]
    """Criterion to the better one. A side wins only when it is chosen in both orders; None where an order has no answer."""
    shown: tuple[dict[str, Choice | None], dict[str, Choice | None]]
    """What was chosen with the first conversation shown first, and with the second shown first."""
    failures: dict[str, int] = Field(default_factory=dict)
    num_retried: int = 0
    reason: str = ""

    @property
    def is_owed(self) -> bool:
        """Whether a fault of the server left it unfinished."""
        return bool(self.failures.get("server"))


class PairJudge:
    """Compares conversations by PEARL's criteria through a chat model, each pair in both orders.

    Args:
        backend: takes chat messages.
        name: how its scores call it.
    """

    def __init__(self, backend: Backend, name: str) -> None:
        self.backend = backend
        self.name = name
        self.fingerprint = f"{name} prompts {prompts_digest()}"

    async def compare(self, first: Talk, second: Talk, seed: int) -> PairVerdict:
        """Which of two conversations is the better one, by each criterion."""
        options = {c.name: tuple(_CHOICES) for c in CRITERIA}
        failures: Counter[str] = Counter()
        shown: list[dict[str, Choice | None]] = []
        num_retried = 0
        reason = ""
        orders: tuple[tuple[Talk, Talk, Callable[[Choice], Choice]], ...] = (
            (first, second, lambda choice: choice),
            (second, first, lambda choice: _OTHER[choice]),
        )
        for number, (one, two, back) in enumerate(orders):
            prompt = _prompt("pair.txt").substitute(
                one=transcript(one.lines),
                two=transcript(two.lines),
                criteria="\n".join(f"- {c.name}: {c.question}" for c in CRITERIA),
                example=_example(options),
            )
            found = await ask(
                self.backend,
                prompt,
                options,
                seed=derive_seed(seed, first.id, number),
                session=f"compare.{first.id}.{number}",
            )
            failures.update(found.failures)
            num_retried += found.num_retried
            reason = reason or found.reason
            shown.append({n: None if v is None else back(_CHOICES[v]) for n, v in found.values.items()})
        return PairVerdict(
            id=first.id,
            choices={c.name: _agreed(shown[0][c.name], shown[1][c.name]) for c in CRITERIA},
            shown=(shown[0], shown[1]),
            failures=dict(failures),
            num_retried=num_retried,
            reason=reason,
        )


_OTHER: dict[Choice, Choice] = {"first": "second", "second": "first", "tie": "tie"}


def _agreed(one: Choice | None, two: Choice | None) -> Choice | None:
    if one is None or two is None:
        return None
    return one if one == two else "tie"
