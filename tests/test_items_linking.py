"""Linking of text to items: what is linked, what is not, and why."""

import io
import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interplay.cli import main
from interplay.corpora.bundled import bundled_movies
from interplay.items.linking import Linker
from interplay.items.ordinary import surprise
from interplay.types import DOMAINS, Catalog, Item

EXTRA = (
    ("thriller", "Thriller", 1983),
    ("lion-king-2019", "The Lion King", 2019),
    ("lion-king-old", "The Lion King", 1994),
    ("godzilla-54", "Godzilla", 1954),
    ("godzilla-98", "Godzilla", 1998),
    ("sw4", "Star Wars: Episode IV - A New Hope", 1977),
    ("sw5", "Star Wars: Episode V - The Empire Strikes Back", 1980),
    ("godfather-2", "The Godfather: Part II", 1974),
    ("seven", "Seven", 1995),
    ("it", "It", 2017),
    ("ocean", "Ocean's Eleven", 2001),
    ("knives", "Knives Out", 2019),
    ("spider", "Spider-Man", 2002),
    ("heat", "Heat", 1995),
    ("matrix", "The Matrix", 1999),
    ("titanic", "Titanic", 1997),
    ("shawshank", "The Shawshank Redemption", 1994),
    ("joker", "Joker", 2019),
    ("tiger", "Crouching Tiger, Hidden Dragon", 2000),
    ("big", "Big", 1988),
)


@pytest.fixture(scope="module")
def linker() -> Linker:
    items = [Item(id=i, title=t, year=y) for i, t, y in EXTRA]
    items.append(Item(id="forrest", title="Forrest Gump", year=1994, attributes={"cast": ("Tom Hanks", "Stan Lee")}))
    items.append(Item(id="stan", title="Stan", year=2000))
    return Linker(Catalog(items, DOMAINS["movie"]), aliases={"seven": ("Se7en",)}, weights={"lion-king-old": 4.0})


def found(linker, text, **more):
    return [k.item_id for k in linker.find(text, **more)]


@pytest.mark.parametrize(
    ("title", "item_id", "how"),
    [
        ("Heat", "heat", "exact"),
        ("Matrix, The (1999)", "matrix", "normalised"),
        ("Heat 1995", "heat", "exact"),
        ("Heat (1996)", "heat", "exact"),
        ("Se7en", "seven", "alias"),
        ("the godfather 2", "godfather-2", "alias"),
        ("Oceans Eleven", "ocean", "normalised"),
        ("spiderman", "spider", "alias"),
        ("Titanik", "titanic", "fuzzy"),
        ("The Empire Strikes Back", "sw5", "part"),
        ("Godzilla (1998)", "godzilla-98", "exact"),
        ("Godzilla (1955)", "godzilla-54", "exact"),
    ],
)
def test_a_title_given_as_such_is_linked(linker, title, item_id, how):
    link = linker.link(title)
    assert (link.item_id, link.how) == (item_id, how)
    assert link.why


@pytest.mark.parametrize(
    ("title", "why"),
    [
        ("Heat (1972)", "no 'Heat' within 2 years of 1972; known: 1995"),
        ("Godzilla (1970)", "known: 1954, 1998"),
        ("Star Wars", "the first words of several titles"),
        ("qwertyuiop asdf", "no item has this title"),
        ("...", "no item has this title"),
    ],
)
def test_a_link_that_fails_says_why(linker, title, why):
    link = linker.link(title)
    assert link.item_id is None
    assert why in link.why


def test_remakes_are_told_apart_by_year_words_context_and_fame(linker):
    assert found(linker, "I saw Godzilla (1998) last week") == ["godzilla-98"]
    assert found(linker, "the 1954 Godzilla is better") == ["godzilla-54"]
    assert found(linker, "I saw the original Godzilla") == ["godzilla-54"]
    assert found(linker, "I watched The Lion King") == ["lion-king-old"]
    (link,) = linker.find("I watched The Lion King")
    assert "2 items of this title (1994, 2019)" in link.why
    assert link.score < 0.8
    assert set(link.candidates) == {"lion-king-old", "lion-king-2019"}
    assert found(linker, "I watched The Lion King", context=["lion-king-2019"]) == ["lion-king-2019"]
    assert found(linker, "have you seen Godzilla?") == ["godzilla-98"]


@pytest.mark.parametrize(
    "text",
    [
        "it's a thriller",
        "I like a good thriller, or a big comedy",
        "It was great, thanks",
        "I have seen seven of them",
        "the heat is too much today, it really is",
        "that is a big if",
        "I like drama and horror",
        "Stan Lee is in all of them",
    ],
)
def test_ordinary_words_are_not_linked(linker, text):
    assert found(linker, text) == []


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ('have you seen "Thriller"?', ["thriller"]),
        ("Have you seen It (2017)?", ["it"]),
        ("i love titanic, joker and the matrix", ["titanic", "joker", "matrix"]),
        ("I just saw Knives Out and Joker.", ["knives", "joker"]),
        ("have you watched shawshank redemtion", ["shawshank"]),
        ("crouching tiger hidden dragon is my favorite", ["tiger"]),
        ("Tom Hanks was great in Forrest Gump", ["forrest"]),
    ],
)
def test_titles_in_running_text_are_linked(linker, text, ids):
    assert found(linker, text) == ids


def test_a_span_covers_the_article_and_the_year_in_brackets(linker):
    text = "You should watch The Matrix (1999) tonight."
    (link,) = linker.find(text)
    assert text[link.start : link.end] == "The Matrix (1999)"


def test_a_title_does_not_go_over_the_end_of_a_sentence(linker):
    assert found(linker, "He has many knives. Out of those I like two") == []


def test_what_was_refused_is_told_with_its_reason(linker):
    (link,) = [k for k in linker.find("it's a thriller", refused=True) if "thriller" in "it's a thriller"[k.start : k.end]]
    assert link.item_id is None
    assert "may mean 'Thriller (1983)', but everyday words" in link.why


def test_what_was_spoken_of_before_needs_less_evidence(linker):
    text = "I thought heat was long"
    assert found(linker, text) == []
    assert found(linker, text, context=["heat"]) == ["heat"]


@given(st.text(max_size=80))
def test_any_text_is_read_and_spans_lie_inside_in_order(text):
    linker = _SMALL
    links = linker.find(text)
    assert all(0 <= k.start < k.end <= len(text) for k in links)
    assert all(a.end <= b.start for a, b in pairwise(links))
    linker.link(text)


_SMALL = Linker(Catalog([Item(id="a", title="Heat", year=1995), Item(id="b", title="...")], DOMAINS["movie"]))


def test_the_label_of_every_bundled_movie_links_to_it():
    linker = Linker(bundled_movies())
    assert [i.label for i in bundled_movies() if linker.link(i.label).item_id != i.id] == []
    text = "You might like {} if you have not seen it."
    assert [i.label for i in bundled_movies() if found(linker, text.format(i.label)) != [i.id]] == []


def test_a_phrase_is_no_more_surprising_than_it_is_listed():
    assert surprise(["good", "night"]) < surprise(["good"]) + surprise(["night"])
    assert surprise(["you"]) < 2 < 5.5 < surprise(["qwertyuiop"])


def test_the_command_links_a_text_and_lines_of_text(tmp_path, capsys, monkeypatch):
    out = str(tmp_path / "cat")
    assert main(["items", "build", "--sources", "bundled", "--out", out]) == 0
    capsys.readouterr()
    assert main(["items", "link", "have you seen The Matrix (1999)? it's a thriller", "--catalog", out]) == 0
    assert "'The Matrix (1999)' -> The Matrix (1999)  matrix-1999  exact" in capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.StringIO("I loved Inception\nnothing\n"))
    assert main(["items", "link", "-", "--catalog", out]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [[k["item_id"] for k in row["links"]] for row in rows] == [["inception-2010"], []]
