"""The grammar of `parsing` as GBNF text, for servers and engines with structured outputs (vLLM, xgrammar, llama.cpp).

It is stricter than the parser in one thing: text holds no "<", so that nothing in it can look like a tag.
"""

import re
from collections.abc import Collection

from interplay.formats.tags import (
    ACTION_CLOSE,
    ACTION_OPEN,
    BECAUSE,
    END_OF_TURN,
    HAS,
    IS,
    MATCH,
    RANKING,
    REASONING_CLOSE,
    REASONING_OPEN,
    RESPONSE_OPEN,
    SCORES,
    WANTS,
    action_tag,
    structural_tags,
    title_tags,
)
from interplay.types import ACTIONS, FURTHER_ACTS, Action, Domain, Role

MOST_TITLES = 500
"""More titles than this are not written into a grammar: it would be slow to compile and to follow."""

MOST_ACTS = 3
"""Acts that may follow an action in a grammar."""

_BLANKS = r"\x09-\x0d\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""What `str.strip` takes for white space, as the inside of a character class."""


def gbnf(
    role: Role,
    domain: Domain,
    titles: Collection[str] | None = None,
    action: Action | None = None,
    *,
    list_length: int = 0,
    candidates: Collection[str] = (),
    acts: bool = False,
) -> str:
    """The grammar of one turn, root rule "root".

    Args:
        role: whose actions are allowed.
        domain: tells the title tags.
        titles: what may be named. Only at most MOST_TITLES are written out; with more, and with None, a title is any text
            that is not blank. Titles that hold a structural tag are left out: they could not be read back. With none left
            no title can be named.
        action: the one that the turn must take; by default any of the role's.
        list_length: titles of the list of a recommender that reasons (`formats.reasoning`); 0: it does not reason. That the
            titles are distinct is not in the grammar, which would have to write out every order of them.
        candidates: what its list is chosen from; empty: what may be named.
        acts: whether up to MOST_ACTS acts may follow the action; that they are distinct is not in the grammar.
    """
    opening, closing = title_tags(domain)
    actions = " | ".join(_literal(action_tag(a)) for a in (ACTIONS[role] if action is None else (action,)))
    root = "turn" if list_length else "root"
    rules = [
        f"{root} ::= {_literal(ACTION_OPEN)} action body {_literal(END_OF_TURN)}",
        *_action_rules(role, actions, acts=acts),
        f"words ::= [{_BLANKS}]* [^<{_BLANKS}] [^<]*",
    ]
    known = None
    if titles is not None and len(titles) <= MOST_TITLES:
        known = _writable(titles, domain)
    if list_length:
        rules += _reasoning_rules(domain, known, _writable(candidates, domain), list_length)
    if known == []:
        return "\n".join([*rules, "body ::= words"]) + "\n"
    # Stretches of text are followed by a "<" or nothing: no two ways to read one turn, also for engines that first cut the
    # text into lexemes (llguidance).
    rules += [
        "body ::= words titles? | blank? titles",
        f"blank ::= [{_BLANKS}]+",
        "titles ::= title text? titles?",
        "text ::= [^<]+",
        f"title ::= {_literal(opening)} {'words' if known is None else 'known'} {_literal(closing)}",
    ]
    if known:
        rules.append(f"known ::= {' | '.join(map(_literal, known))}")
    return "\n".join(rules) + "\n"


def _action_rules(role: Role, actions: str, *, acts: bool) -> list[str]:
    """The block behind `<action>` with what closes it: an engine that cuts text into lexemes has to see where it may stop."""
    close = _literal(ACTION_CLOSE + RESPONSE_OPEN)
    if not acts:
        return [f"action ::= ({actions}) {close}"]
    rules = [f"action ::= ({actions}) further{MOST_ACTS}", f"further0 ::= {close}"]
    rules += [f"further{num} ::= {close} | act further{num - 1}" for num in range(1, MOST_ACTS + 1)]
    return [*rules, f"act ::= {' | '.join(_literal(action_tag(a)) for a in FURTHER_ACTS[role])}"]


def _writable(titles: Collection[str], domain: Domain) -> list[str]:
    tag = re.compile("|".join(map(re.escape, structural_tags(domain, notes=True, reasoning=True))), re.IGNORECASE)
    return sorted({title.strip() for title in titles if not tag.search(title)} - {""})


def _reasoning_rules(domain: Domain, known: list[str] | None, candidates: list[str], list_length: int) -> list[str]:
    opening, closing = title_tags(domain)
    choices = candidates or known
    places = min(list_length, len(choices)) if choices is not None else list_length
    what = "words" if choices is None else "(" + " | ".join(map(_literal, choices)) + ")"
    refs = " ".join(["ref"] * places) if choices != [] else ""
    reasoning = [f"{_literal(REASONING_OPEN)} wants* match*" if refs else f"{_literal(REASONING_OPEN)} wants*"]
    reasoning += [f"{_literal(RANKING)} {refs}".strip(), f"because? {_literal(REASONING_CLOSE)}"]
    rules = [
        "root ::= reasoning turn",
        f"reasoning ::= {' '.join(reasoning)}",
        f"wants ::= {_literal(WANTS)} words {_literal(IS)} words",
        f"because ::= {_literal(BECAUSE)} words",
    ]
    if refs:
        scores = " | ".join(map(_literal, SCORES))
        rules += [
            f"match ::= {_literal(MATCH)} ref has* ({scores})",
            f"has ::= {_literal(HAS)} words",
            f"ref ::= {_literal(opening)} {what} {_literal(closing)}",
        ]
    return rules


def _literal(text: str) -> str:
    r"""A string of the grammar.

    >>> print(_literal('Say "Hi"'))
    "Say \"Hi\""
    """
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda m: f"\\x{ord(m.group()):02x}", escaped) + '"'
