"""Tags, tokens, masks, parsing and chat rendering."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interplay.errors import CheckpointError, FormatError
from interplay.evaluation.leakage import texts_of
from interplay.formats.chat import PROMPTS, ChatFormat, Example, prompts_digest
from interplay.formats.parsing import events_of_text, parse_turn, text_of_turn
from interplay.formats.tags import END_OF_TURN, structural_tags
from interplay.formats.tokens import IGNORED, TokenFormat, add_structural_tokens
from interplay.titles import names_title
from interplay.training.backbone import train_tokenizer
from interplay.types import ACTIONS, DOMAINS, Action, Role, Turn, view_of
from makers import CATALOG, HEAT, MOVIE, TALK, plain_words, recommender, scenario, scenarios, texts, turns, user

WORDS = ["hello what do you feel like today", "maybe a crime thriller from the 1990s", *(i.label for i in CATALOG)]


def make_format(domain=MOVIE) -> TokenFormat:
    tokenizer = train_tokenizer(WORDS, 400)
    add_structural_tokens(tokenizer, domain)
    return TokenFormat(tokenizer, domain)


FORM = make_format()
FORMS = {domain.name: make_format(domain) for domain in DOMAINS.values()}


def same_words(a: Turn, b: Turn) -> bool:
    return (a.role, a.action, a.text, a.titles) == (b.role, b.action, b.text, b.titles)


def test_the_tags_of_movies_are_those_of_the_paper():
    assert {"<action>", "<recommend>", "<inquire>", "<accept>", "<response>", "<movie_title>", "</movie_title>"} <= set(
        structural_tags(MOVIE)
    )


@pytest.mark.parametrize("domain", DOMAINS.values(), ids=lambda d: d.name)
def test_every_tag_is_one_token_before_and_after_saving(domain, tmp_path):
    form = FORMS[domain.name]
    form.tokenizer.save_pretrained(tmp_path)
    from interplay.simulation.checkpoint import load_tokenizer

    again = load_tokenizer(tmp_path)
    for tag in structural_tags(domain):
        (index,) = form.tokenizer.encode(tag, add_special_tokens=False)
        assert again.encode(tag, add_special_tokens=False) == [index]


def test_a_tokenizer_without_the_tags_is_refused():
    with pytest.raises(CheckpointError, match="has no token <user>"):
        TokenFormat(train_tokenizer(WORDS, 400), MOVIE)


def test_the_ids_of_a_turn_are_exactly_its_tags_and_words():
    turn = recommender(Action.RECOMMEND, "Try ", HEAT, ".")
    tag = {t: FORM.tokenizer.convert_tokens_to_ids(t) for t in structural_tags(MOVIE)}
    assert FORM.turn_ids(turn) == [
        tag["<action>"],
        tag["<recommend>"],
        tag["</action>"],
        tag["<response>"],
        *FORM.encode_text("Try "),
        tag["<movie_title>"],
        *FORM.encode_text("Heat (1995)"),
        tag["</movie_title>"],
        *FORM.encode_text("."),
        tag["</response>"],
    ]


def test_the_labels_of_a_role_are_its_words_with_their_end_and_nothing_else():
    view = view_of(scenario(), Role.USER, with_persona=False).after(*TALK)
    rendered = FORM.render(view)
    learned = [i for i in rendered.labels(Role.USER) if i != IGNORED]
    assert learned == [i for turn in TALK if turn.role is Role.USER for i in FORM.turn_ids(turn)]
    assert learned.count(FORM.end_of_turn) == 3


@given(st.lists(turns(), max_size=5), scenarios(MOVIE))
@settings(max_examples=50)
def test_the_masks_of_the_roles_are_disjoint_and_cover_exactly_the_spoken_tokens(talk, start):
    rendered = FORM.render(view_of(start, Role.USER, with_persona=False).after(*talk))
    users, recommenders = (
        {k for k, label in enumerate(rendered.labels(role)) if label != IGNORED} for role in (Role.USER, Role.RECOMMENDER)
    )
    assert not users & recommenders
    assert [rendered.ids[k] for k in sorted(users | recommenders)] == [i for turn in talk for i in FORM.turn_ids(turn)]


@given(st.lists(turns(words=texts), min_size=1, max_size=5), scenarios(MOVIE))
@settings(max_examples=50)
def test_a_longer_conversation_has_the_shorter_one_as_its_prefix(talk, start):
    view = view_of(start, Role.USER, with_persona=False)
    longer = FORM.render(view.after(*talk)).ids
    for k in range(len(talk)):
        shorter = FORM.render(view.after(*talk[:k])).ids
        assert longer[: len(shorter)] == shorter


@given(turns(words=texts))
@settings(max_examples=200)
def test_ids_of_any_turn_are_read_back_as_the_same_turn_even_when_its_words_look_like_tags(turn):
    assert same_words(FORM.parse(FORM.turn_ids(turn), turn.role), turn)


@given(turns(words=st.sampled_from(["<response>", "</response>", "<movie_title>", "a<action>b", "</action>x"])))
@settings(max_examples=50)
def test_words_that_spell_a_tag_do_not_become_structure(turn):
    ids = FORM.turn_ids(turn)
    assert ids.count(FORM.end_of_turn) == 1
    assert same_words(FORM.parse(ids, turn.role), turn)


@given(turns(words=plain_words.filter(lambda w: "<" not in w)))
@settings(max_examples=100)
def test_the_text_of_any_turn_is_read_back_as_the_same_turn(turn):
    text = text_of_turn(turn, MOVIE)
    assert same_words(parse_turn(events_of_text(text, MOVIE), turn.role, MOVIE, text), turn)


@given(st.lists(st.sampled_from([*structural_tags(MOVIE), "hi", " ", "Heat", "accept", "```", "<", "\n"]), max_size=12))
@settings(max_examples=300)
def test_whatever_a_model_writes_is_a_turn_or_a_format_error_that_keeps_it(pieces):
    raw = "".join(pieces)
    try:
        turn = ChatFormat(MOVIE).parse(raw, Role.USER)
    except FormatError as error:
        assert error.raw == raw
    else:
        assert turn.raw == (raw,)
        assert turn.text


@given(st.lists(st.integers(0, len(FORM.tokenizer) - 1), max_size=30))
@settings(max_examples=200)
def test_whatever_ids_are_sampled_are_a_turn_or_a_format_error(ids):
    try:
        FORM.parse(ids, Role.RECOMMENDER)
    except FormatError as error:
        assert error.reason in FormatError.REASONS


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("", "empty-output"),
        ("Hello there", "no-action"),
        ("<action>", "cut-off"),
        ("<action><dance></action><response>hi</response>", "unknown-action"),
        ("<action><recommend></action><response>hi</response>", "action-of-other-role"),
        ("<action><chat></action>hi", "no-response"),
        ("<action><chat></action><response></response>", "empty-output"),
        ("<action><chat></action><response>I saw <movie_title>Heat</response>", "unclosed-title"),
        ("<action><chat></action><response>I saw <movie_title> </movie_title></response>", "empty-title"),
        ("<action><chat></action><response>a<chat>b</response>", "stray-tag"),
        ("<action><chat></action><response>a</response> and more", "stray-tag"),
    ],
)
def test_each_kind_of_malformed_output_has_its_reason(raw, reason):
    with pytest.raises(FormatError) as caught:
        parse_turn(events_of_text(raw, MOVIE), Role.USER, MOVIE, raw)
    assert (caught.value.reason, caught.value.raw) == (reason, raw)


def test_ids_that_stop_before_the_end_of_the_turn_are_cut_off():
    ids = FORM.turn_ids(user(Action.CHAT, "I like it"))[:-1]
    with pytest.raises(FormatError, match="cut-off"):
        FORM.parse(ids, Role.USER)


@pytest.mark.parametrize(
    "raw",
    [
        "Sure!\n<action>feedback</action><response>nope</response>",
        "<ACTION><Feedback></ACTION> <response>nope</response>",
        "```\n<action>`feedback`</action>\n<response>nope</response>\n```",
        "<action><feedback></action><response>nope",
    ],
)
def test_habits_of_chat_models_are_forgiven(raw):
    turn = ChatFormat(MOVIE).parse(raw, Role.USER)
    assert (turn.action, turn.text) == (Action.FEEDBACK, "nope")


@given(scenarios(), st.sampled_from(Role), st.booleans())
@settings(max_examples=200)
def test_no_rendering_names_the_target_before_it_was_said(start, role, with_persona):
    # A5, over both renderings, every template and every domain.
    view = view_of(start, role, with_persona=with_persona)
    title = start.targets[0].title
    form = FORMS[start.domain]
    persona = form.decode(form.persona_ids(view))
    for tag in structural_tags(view.domain):  # a film may be called "<" or "goal"
        persona = persona.replace(tag, " ")
    assert not names_title(persona, title)
    for prompt in PROMPTS[role]:
        chat = ChatFormat(view.domain, prompt)
        system = chat.messages(view)[0].content
        words_of_the_prompt = chat.messages(view_of(scenario(), role, with_persona=False))[0].content
        assert not names_title(system, title) or names_title(words_of_the_prompt, title)


@given(scenarios(), st.sampled_from(Role), st.booleans())
@settings(max_examples=100)
def test_renderings_do_not_depend_on_the_target(start, role, with_persona):
    without = start.model_copy(update={"targets": ()})
    views = [view_of(s, role, with_persona=with_persona) for s in (start, without)]
    form, chat = FORMS[start.domain], ChatFormat(views[0].domain)
    assert form.render(views[0]) == form.render(views[1])
    assert chat.messages(views[0]) == chat.messages(views[1])


def test_of_scenario_and_turns_renderings_show_nothing_that_leak_detection_does_not_read():
    # G3: what is checked (`leakage.texts_of`, Turn.text) is what is heard; ids, raw output and labels reach nobody.
    start = scenario().model_copy(update=dict.fromkeys(("source_id", "user_id", "recommender_id", "corpus"), "HIDDEN"))
    said = [t.model_copy(update={"raw": ("HIDDEN",), "strategies": ("HIDDEN",)}) for t in TALK[:3]]
    for role in Role:
        view = view_of(start, role, with_persona=True).after(*said)
        shown = [FORM.decode(FORM.render(view).ids)]
        shown += [m.content for prompt in PROMPTS[role] for m in ChatFormat(MOVIE, prompt).messages(view)]
        assert not [text for text in shown if "HIDDEN" in text]
        persona = {text for _, text in texts_of(view) if text}
        nothing = replace(view, general_preferences="", known_items=(), target_attributes=())
        assert not {text for text in persona if text in FORM.decode(FORM.render(nothing).ids)}


def test_the_recommender_sees_the_persona_only_when_asked_and_never_the_target_attributes():
    shown = {p: FORM.decode(FORM.render(view_of(scenario(), Role.RECOMMENDER, with_persona=p)).ids) for p in (False, True)}
    assert shown[False] == ""
    assert "likes slow films" in shown[True]
    assert "crime" not in shown[True]


def test_the_chat_rendering_alternates_and_shows_own_turns_with_their_tags():
    messages = ChatFormat(MOVIE).messages(view_of(scenario(), Role.RECOMMENDER, with_persona=False).after(*TALK[:3]))
    assert [m.role for m in messages] == ["system", "user", "assistant", "user", "assistant"]
    assert messages[2].content.startswith("<action><greeting></action><response>Hello!")
    assert messages[3].content == "something with crooks"


@pytest.mark.parametrize(("role", "prompt"), [(role, name) for role in Role for name in PROMPTS[role]])
@pytest.mark.parametrize("domain", DOMAINS.values(), ids=lambda d: d.name)
def test_every_prompt_fills_every_blank_and_names_the_role_s_actions(role, prompt, domain):
    start = scenario().model_copy(update={"domain": domain.name})
    system = ChatFormat(domain, prompt).messages(view_of(start, role, with_persona=True))[0].content
    assert "$" not in system
    assert domain.noun in system
    assert f"<{domain.tag}>" in system
    assert all(action.value in system for action in ACTIONS[role])


@pytest.mark.parametrize(
    ("prompt", "shown"),
    [
        ("reference-free", {"likes slow films", "scared me to bits", "crime"}),
        ("ievalm", {"Heat (1995)"}),
        ("pepper", {"likes slow films", "scared me to bits"}),
        ("attributes-only", {"crime"}),
    ],
)
def test_each_prompt_of_a_user_shows_its_part_of_the_view_and_no_other(prompt, shown):
    view = view_of(scenario(), Role.USER, with_persona=True, tell_target=PROMPTS[Role.USER][prompt].told_targets)
    system = ChatFormat(MOVIE, prompt).messages(view)[0].content
    assert {part for part in ("likes slow films", "scared me to bits", "crime", "Heat (1995)") if part in system} == shown


def test_only_the_prompt_that_is_told_the_target_reads_it_from_a_view_that_tells_it():
    view = view_of(scenario(), Role.USER, with_persona=True, tell_target=True)
    told = [name for name in PROMPTS[Role.USER] if "Heat" in ChatFormat(MOVIE, name).messages(view)[0].content]
    assert told == ["ievalm"]
    with pytest.raises(ValueError, match="never told"):
        view_of(scenario(), Role.RECOMMENDER, with_persona=True, tell_target=True)


def test_a_user_is_shown_examples_without_titles_and_a_recommender_with_them():
    example = Example(TALK[2:4], TALK[4])
    system = {
        role: ChatFormat(MOVIE, examples=lambda view: [example])
        .messages(view_of(scenario(), role, with_persona=False))[0]
        .content
        for role in Role
    }
    assert "Then <movie_title>Heat (1995)</movie_title>" in system[Role.RECOMMENDER]
    assert "You: Maybe Up (2009)?" in system[Role.RECOMMENDER]
    assert "Heat" not in system[Role.USER]
    assert "Maybe (a movie)?" in system[Role.USER]


def test_the_digest_of_the_prompts_is_stable_within_a_version():
    assert prompts_digest() == prompts_digest()
    assert len(prompts_digest()) == 16


def test_the_end_of_turn_is_what_decoding_stops_at():
    assert FORM.decode([FORM.end_of_turn]) == END_OF_TURN


def test_a_note_tells_which_target_attributes_the_words_of_a_recommendation_do_not_name():
    tokenizer = train_tokenizer(WORDS, 400)
    add_structural_tokens(tokenizer, MOVIE, notes=True)
    form = TokenFormat(tokenizer, MOVIE, notes=True)
    view = view_of(scenario(attributes=("crime", "1970s", "thriller")), Role.USER, with_persona=False)
    offer = recommender(Action.RECOMMEND, "Then ", HEAT, ", a 1990s Crime story.")
    assert form.decode(form.note_ids(view, offer)) == "<unmet> 1970s<unmet> thriller"
    assert form.note_ids(view, recommender(Action.INQUIRE, "What else?")) == []
    assert form.note_ids(view_of(scenario(), Role.RECOMMENDER, with_persona=True), offer) == []
    rendered = form.render(view.after(offer))
    assert [i for i, who in zip(rendered.ids, rendered.spoken_by, strict=True) if who] == form.turn_ids(offer)


def test_without_notes_a_rendering_has_none_and_needs_no_tag_for_them():
    offer = recommender(Action.RECOMMEND, "Then ", HEAT)
    view = view_of(scenario(), Role.USER, with_persona=False)
    assert FORM.note_ids(view, offer) == []
    assert FORM.tokenizer.convert_tokens_to_ids("<unmet>") is None
