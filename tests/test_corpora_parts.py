"""The parts of the road from messages to scenarios: merging, linking, tagging, endings, annotators, splits."""

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interplay.corpora.annotators import Annotation, AnnotationRequest, RuleAnnotator, parse_annotation, render_request
from interplay.corpora.attributes import decade, normal_genres, speaks_of, spoken_genres
from interplay.corpora.endings import Wanted, close
from interplay.corpora.facts import as_list, item_id_for
from interplay.corpora.linking import TitleLinker
from interplay.corpora.messages import Span, Spoken, merge_messages, sentences, write_titles
from interplay.corpora.scenarios import Known, persona_of
from interplay.corpora.splits import assign_splits, overlap_report
from interplay.corpora.tagger import (
    RuleTagger,
    TrainedTagger,
    cross_validate,
    intents_to_action,
    load_tagger,
    read_iard,
)
from interplay.errors import DataError
from interplay.types import (
    DOMAINS,
    Action,
    Catalog,
    Ending,
    Item,
    KnownItem,
    Mention,
    Persona,
    Role,
    Scenario,
    Split,
    Target,
)

IARD = Path(__file__).parent / "fixtures/iard"
U, R = Role.USER, Role.RECOMMENDER
ITEMS = [
    Item(id=name.lower(), title=name, year=year)
    for name, year in (("Heat", 1995), ("It", 2017), ("Her", 2013), ("Thriller", None), ("Iron Ledger", 1994))
]
CATALOG = Catalog(ITEMS, DOMAINS["movie"])


def say(role: Role, text: str, *items: str) -> Spoken:
    """A message with `{}` for each item's label."""
    mentions, out = [], ""
    for piece, item_id in zip(text.split("{}"), [*items, None], strict=True):
        out += piece
        if item_id is not None:
            label = CATALOG[item_id].label
            mentions.append(Mention(start=len(out), end=len(out) + len(label), item_id=item_id))
            out += label
    return Spoken(role, out, tuple(mentions), (text,))


@given(st.lists(st.tuples(st.sampled_from([U, R]), st.sampled_from(["Hi", "", " ", "See {}", "{} or {}!"])), max_size=8))
def test_merging_alternates_speakers_and_keeps_mentions_and_raw(script: list[tuple[Role, str]]) -> None:
    messages = [say(role, text, *["heat", "it"][: text.count("{}")]) for role, text in script]
    turns, num_empty, num_joined = merge_messages(messages)
    assert len(turns) + num_empty + num_joined == len(messages)
    assert all(a.role is not b.role for a, b in itertools.pairwise(turns))
    assert all(t == CATALOG[m.item_id or ""].label for turn in turns for t, m in zip(turn.titles, turn.mentions, strict=True))
    assert [raw for t in turns for raw in t.raw] == [m.raw[0] for m in messages if m.text.strip()]


def test_titles_are_written_as_labels_with_single_blanks_and_no_doubled_year() -> None:
    text = "I  saw @1 (1995) and@2 ."
    spans = [Span(7, 9, CATALOG["heat"]), Span(20, 22, CATALOG["it"])]
    written, mentions = write_titles(text, spans)
    assert written == "I saw Heat (1995) and It (2017)."
    assert [written[m.start : m.end] for m in mentions] == ["Heat (1995)", "It (2017)"]


@given(st.text(alphabet="ab .!?\n", max_size=40))
def test_sentences_lie_in_order_and_lose_no_letter(text: str) -> None:
    cuts = sentences(text)
    assert all(a < b for a, b in cuts)
    assert all(b <= c for (_, b), (c, _) in itertools.pairwise(cuts))
    kept = "".join(text[a:b] for a, b in cuts)
    assert [c for c in kept if c.isalpha()] == [c for c in text if c.isalpha()]


@pytest.mark.parametrize(
    ("text", "proposed", "found"),
    [
        ("have you seen iron ledger?", ["iron ledger"], []),
        ("have you seen Iron Ledger?", [], ["Iron Ledger"]),
        ("Her acting is nice, I like it", ["her", "it"], []),
        ("I watched Her yesterday", ["her"], ["Her"]),
        ("Heat (1995) is great", ["heat"], ["Heat"]),
        ("The heat is on", ["heat"], []),
        ("a Thriller would be nice", ["thriller"], []),
        ("Ok. Iron. Ledger", [], []),
    ],
)
def test_a_title_is_linked_only_where_it_reads_like_one(text: str, proposed: list[str], found: list[str]) -> None:
    spans = TitleLinker(CATALOG).find(text, proposed)
    assert [s.item.title for s in spans] == found


@pytest.mark.parametrize(
    ("role", "intents", "first", "action"),
    [
        (U, ["SEE", "ACC"], False, Action.ACCEPT),
        (U, ["PRO", "CRI-F"], False, Action.FEEDBACK),
        (U, ["PRO", "INQ"], False, Action.INQUIRE),
        (U, ["OTH", "IQU"], True, Action.DISCLOSE_GOAL),
        (U, ["OTH"], True, Action.GREETING),
        (U, ["OTH"], False, Action.CHAT),
        (R, ["EXP-P", "REC-S"], False, Action.RECOMMEND),
        (R, ["OTH", "REQ"], True, Action.INQUIRE),
        (R, ["R-ANS"], False, Action.ANSWER),
        (R, ["RESP"], False, Action.CHAT),
        (R, ["OTH"], True, Action.GREETING),
    ],
)
def test_several_intents_become_one_action_by_priority(role: Role, intents: list[str], first: bool, action: Action) -> None:
    assert intents_to_action(role, intents, first=first) is action


@pytest.mark.parametrize("tagger", [RuleTagger(), TrainedTagger.fit(*read_iard(IARD))])
def test_evidence_beats_the_tagger(tagger: RuleTagger | TrainedTagger) -> None:
    talk = [
        say(R, "Hello!"),
        say(U, "Hi there"),
        say(U, "Great, I will watch it"),
        say(R, "Do you know {}?", "heat"),
        say(U, "Sounds good, I will watch it"),
    ]
    actions = tagger.tag([talk])[0]
    assert actions[:2] == [Action.GREETING, Action.GREETING]
    assert actions[2] is not Action.ACCEPT
    assert actions[3:] == [Action.RECOMMEND, Action.ACCEPT]


def test_the_tagger_is_scored_on_unseen_conversations_beside_the_majority() -> None:
    scores = cross_validate(IARD, folds=3)
    assert [s.role for s in scores] == [U, R]
    assert all(s.majority_macro_f1 < s.macro_f1 <= 1 for s in scores)
    assert cross_validate(IARD, folds=3) == scores


def test_a_missing_iard_means_rules_and_a_damaged_one_is_an_error(tmp_path: Path) -> None:
    assert isinstance(load_tagger(None), RuleTagger)
    assert isinstance(load_tagger(tmp_path), RuleTagger)
    assert isinstance(load_tagger(IARD), TrainedTagger)
    (tmp_path / "umap2020_IARD_Cai.json").write_text("[1]")
    with pytest.raises(DataError, match="not the IARD file"):
        load_tagger(tmp_path)


OPENING = [say(R, "What do you like?"), say(U, "Crime")]
BEFORE = [Action.INQUIRE, Action.DISCLOSE_GOAL]


def test_turns_after_the_final_acceptance_are_cut_and_earlier_ones_become_feedback() -> None:
    turns = [
        *OPENING,
        say(R, "{}?", "heat"),
        say(U, "I'll watch it"),
        say(R, "Or {}?", "it"),
        say(U, "Even better"),
        say(R, "Enjoy"),
        say(U, "Bye"),
    ]
    actions = [*BEFORE, Action.RECOMMEND, Action.ACCEPT, Action.RECOMMEND, Action.ACCEPT, Action.CHAT, Action.CHAT]
    closed = close(turns, actions, [Wanted("it"), Wanted("heat")])
    assert closed.target == "it"
    assert closed.actions == [*BEFORE, Action.RECOMMEND, Action.FEEDBACK, Action.RECOMMEND, Action.ACCEPT]
    assert closed.num_cut == 2


def test_an_acceptance_without_a_tag_is_the_turn_after_the_last_naming() -> None:
    turns = [*OPENING, say(R, "{}?", "heat"), say(U, "Hm, fine"), say(R, "Bye")]
    actions = [*BEFORE, Action.RECOMMEND, Action.CHAT, Action.CHAT]
    assert close(turns, actions, [Wanted("heat")]).ending is Ending.ACCEPTED
    assert close(turns, actions, [Wanted("heat", sure=False)]).ending is Ending.GAVE_UP


def test_without_an_acceptance_the_last_user_turn_gives_up() -> None:
    turns = [*OPENING, say(R, "{}?", "heat"), say(U, "No thanks"), say(R, "Sorry")]
    closed = close(turns, [*BEFORE, Action.RECOMMEND, Action.FEEDBACK, Action.CHAT], [])
    assert (closed.ending, closed.actions[-1], closed.num_cut, closed.target) == (Ending.GAVE_UP, Action.GIVE_UP, 1, None)


def test_a_log_that_stops_midway_has_no_ending() -> None:
    turns = [*OPENING, say(R, "{}?", "heat")]
    closed = close(turns, [*BEFORE, Action.RECOMMEND], None, lenient=True, open_end=True)
    assert (closed.ending, closed.target, closed.num_cut) == (None, "heat", 0)


WORDS = st.sampled_from(["It", "Her", "her", "Thriller", "thriller", "Heat", "heat (1995)", "It (2017)", "the", "crime", "."])
TEXT = st.lists(WORDS, max_size=5).map(" ".join)


@given(
    target=st.sampled_from(ITEMS),
    general=TEXT,
    attributes=st.lists(WORDS, max_size=3).map(tuple),
    known=st.lists(st.tuples(st.sampled_from(ITEMS), TEXT), max_size=3),
)
def test_no_persona_names_its_target_even_a_one_word_title(
    target: Item, general: str, attributes: tuple[str, ...], known: list[tuple[Item, str]]
) -> None:
    items = [Known(KnownItem(title=i.label, review=text, item_id=i.id), None) for i, text in known]
    persona = persona_of(items, Annotation(general, attributes), target)
    Scenario(
        corpus="x",
        domain="movie",
        split=Split.TEST,
        source_id="1",
        persona=persona,
        targets=(Target(item_id=target.id, title=target.label),),
    )


def request(**fields: object) -> AnnotationRequest:
    defaults = {"noun": "movie", "plural": "movies", "user_turns": (), "num_before_target": 0}
    return AnnotationRequest(**{**defaults, **fields})  # type: ignore[arg-type]


def test_the_rules_prefer_attributes_that_the_user_said() -> None:
    facts = (("genre", "drama"), ("genre", "science fiction"), ("decade", "1990s"), ("director", "Ada Lens"))
    found = RuleAnnotator().one(request(user_turns=("Some sci-fi from the 90s, please",), target_facts=facts))
    assert found.target_attributes == ("science fiction", "1990s", "drama")


def test_the_rules_summarise_likes_and_dislikes_briefly() -> None:
    said = (
        "I love comedies.\nI don't like horror films.\nI like that one.\nI love my dog?",
        *["I really like long westerns."] * 9,
    )
    found = RuleAnnotator().one(request(user_turns=said, num_before_target=len(said), liked_genres=("comedy",)))
    text = found.general_preferences
    assert text.startswith("Likes ")
    assert "Does not care for horror movies." in text
    assert "that one" not in text
    assert len(text.split()) <= 60


def test_without_a_target_the_attributes_are_what_the_user_asked_for() -> None:
    found = RuleAnnotator().one(request(user_turns=("A funny cartoon. I hate horror",), num_before_target=1))
    assert found.target_attributes == ("comedy", "animation")


@pytest.mark.parametrize("reply", ["", "no", "{", '{"general_preferences": 1, "target_attributes": []}', "[]", '{"a": {}}'])
def test_a_reply_without_an_annotation_is_none(reply: str) -> None:
    assert parse_annotation(reply) is None


def test_an_annotation_is_read_out_of_a_fenced_reply() -> None:
    reply = '```json\n{"general_preferences": "Likes  crime.", "target_attributes": ["a", "a", "", "b"]}\n```'
    assert parse_annotation(reply) == Annotation("Likes crime.", ("a", "b"))


def test_the_prompt_holds_the_facts_and_no_placeholder() -> None:
    prompt = render_request(request(user_turns=("I like\ncrime",), target_facts=(("genre", "crime"),)))
    assert "- genre: crime" in prompt
    assert "{noun}" not in prompt
    assert '{"general_preferences"' in prompt


def scenarios(num: int) -> list[Scenario]:
    out = []
    for i in range(num):
        targets = () if i % 4 == 0 else (Target(item_id=str(i % 7), title=f"Film {i % 7}"),)
        fields = {"corpus": "x", "domain": "movie", "split": Split.TRAIN, "persona": Persona(), "targets": targets}
        out.append(Scenario(source_id=str(i), user_id=f"u{i % 9}", **fields))  # type: ignore[arg-type]
    return out


@given(num=st.integers(0, 60), by=st.sampled_from(["target", "user", "dialogue"]), seed=st.integers(0, 9))
def test_a_split_shares_nothing_that_it_was_made_by(num: int, by: str, seed: int) -> None:
    given_ = scenarios(num)
    out = assign_splits(given_, by, 0.2, 0.2, seed)  # type: ignore[arg-type]
    assert [s.source_id for s in out] == [s.source_id for s in given_]
    assert out == assign_splits(given_, by, 0.2, 0.2, seed)  # type: ignore[arg-type]
    test = [s for s in out if s.split is Split.TEST]
    rest = [s for s in out if s.split is not Split.TEST]
    if by == "target":
        assert all(s.targets for s in test)
        assert not {t.title for s in test for t in s.targets} & {t.title for s in rest for t in s.targets}
    if by == "user":
        assert not {s.user_id for s in test} & {s.user_id for s in rest}


def test_the_overlap_report_of_nothing_counts_nothing() -> None:
    assert overlap_report([], [])["targets"] == {"train": 0, "test": 0, "shared": 0, "shared_valid_test": 0}


def test_fractions_that_leave_nothing_to_train_on_are_refused() -> None:
    with pytest.raises(ValueError, match="less than 1"):
        assign_splits([], "target", 0.5, 0.5)


def test_attributes_have_one_vocabulary() -> None:
    assert normal_genres(["Sci-Fi", "Action Film", "England", "Romance", "Romance Film"]) == (
        "science fiction",
        "action",
        "romance",
    )
    assert decade(1994) == ("1990s",)
    assert speaks_of("with Pacino", "Al Pacino")
    assert not speaks_of("Heat (1995)", "1990s")
    assert spoken_genres("a scary comedy") == ("horror", "comedy")
    assert as_list("['Crime', 'Drama']") == ["Crime", "Drama"]
    assert item_id_for("Heat", 1995, {"heat-1995"}) == "heat-1995-2"
