"""Catalogs of many sources: reading, merging, ids; and `interplay items build` and `show`."""

import gzip
import json
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interplay.cli import main
from interplay.corpora.attributes import normal_genre
from interplay.corpora.bundled import bundled_movies
from interplay.errors import DataError
from interplay.items.catalogs import BuiltCatalog, build_catalog
from interplay.items.merge import Merged, merge, record_of
from interplay.items.names import item_id, name_key, read_title
from interplay.items.records import SourceRecord
from interplay.items.sources import item_records, read_mapping, read_source
from interplay.types import DOMAINS


def film(title, year=None, *, source="a", own=None, director=(), aliases=(), external=(), **facts) -> SourceRecord:
    attributes = {**{k: tuple(v) for k, v in facts.items()}, **({"director": tuple(director)} if director else {})}
    return SourceRecord(source, own or f"{title}/{year}", title, year, tuple(aliases), attributes, external=tuple(external))


def labels(merged: Merged) -> list[str]:
    return [i.label for i in merged.items]


# ---- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Matrix, The", "the matrix"),
        ("Rocky II", "Rocky 2"),
        ("The Godfather: Part II", "Godfather Part Two, The"),
        ("Amélie", "Amelie"),
        ("Fast & Furious", "Fast and Furious"),
        ("Kill Bill: Vol. 1", "Kill Bill Volume One"),
        ("Ocean's Eleven", "Oceans Eleven"),
        ("Star Wars: Episode V - The Empire Strikes Back", "Star Wars Episode 5: The Empire Strikes Back"),
        ("Kramer vs. Kramer", "Kramer versus Kramer"),
        ("WALL·E", "Wall-E"),
    ],
)
def test_spellings_of_one_title_have_one_key(one, other):
    assert name_key(one) == name_key(other)


@pytest.mark.parametrize(("one", "other"), [("Rocky II", "Rocky III"), ("V", "5"), ("Batman v Superman", "Batman 5 Superman")])
def test_different_titles_have_different_keys(one, other):
    assert name_key(one) != name_key(other)


def test_other_titles_in_brackets_are_aliases():
    assert read_title("Seven (a.k.a. Se7en) (1995)") == ("Seven", 1995, ("Se7en",))


def test_titles_of_punctuation_only_have_ids_of_their_own():
    assert len({item_id("...", 2000), item_id("???", 2000), item_id("...", 2001)}) == 3


# ---- merging ---------------------------------------------------------------------------------------------------------


def test_facts_of_several_sources_are_united_and_counted():
    merged = merge(
        [
            film("Heat", 1995, source="a", genre=["crime"], cast=["Al Pacino", "Robert De Niro"]),
            film("HEAT", 1995, source="b", genre=["crime", "drama"], cast=["Robert de Niro"]),
        ]
    )
    (item,) = merged.items
    assert item.label == "Heat (1995)"
    assert item.attributes["genre"] == ("crime", "drama")
    assert item.attributes["cast"][0] == "Robert De Niro"
    assert item.attributes["decade"] == ("1990s",)
    assert merged.origins[item.id].facts["genre"] == {"a": 1, "b": 1}
    assert merged.counts.merged == {"same title and year": 1}


def test_films_of_one_title_and_different_years_stay_apart_and_are_counted():
    merged = merge([film("Godzilla", 1954), film("Godzilla", 1998, source="b"), film("Godzilla", 2014)])
    assert labels(merged) == ["Godzilla (1954)", "Godzilla (1998)", "Godzilla (2014)"]
    assert merged.counts.apart == {"same title, years further apart": 2}


def test_sources_may_differ_by_one_year():
    merged = merge([film("Memento", 2000, source="a"), film("Memento", 2001, source="b")])
    assert labels(merged) == ["Memento (2000)"]
    assert merged.origins["memento-2000"].other_ids == ("memento-2001",)


@pytest.mark.parametrize(
    "second",
    [film("Pair", 2001, source="a"), film("Pair", 2001, source="b", director=["Bea"])],
    ids=["one source", "directors"],
)
def test_one_year_apart_in_one_source_or_with_other_directors_means_two_films(second):
    assert len(merge([film("Pair", 2000, source="a", director=["Al"]), second]).items) == 2


def test_years_do_not_chain():
    merged = merge([film("Chain", y, source=s) for y, s in ((2000, "a"), (2001, "b"), (2002, "c"))])
    assert len(merged.items) == 2


def test_a_record_without_a_year_joins_the_only_item_of_its_title():
    assert labels(merge([film("Heat", 1995), film("heat", source="b")])) == ["Heat (1995)"]
    several = [film("Heat", 1995, director=["Michael Mann"]), film("Heat", 1986), film("Heat", source="b")]
    assert len(merge(several).items) == 3
    with_director = [*several[:2], film("Heat", source="b", director=["michael mann"])]
    assert labels(merge(with_director)) == ["Heat (1986)", "Heat (1995)"]


def test_aliases_and_external_ids_join_records():
    merged = merge([film("Seven", 1995, aliases=["Se7en"]), film("Se7en", 1995, source="b")])
    assert labels(merged) == ["Se7en (1995)"] or labels(merged) == ["Seven (1995)"]
    merged = merge([film("Shichinin", 1954, external=["imdb:1"]), film("Seven Samurai", 1956, source="b", external=["imdb:1"])])
    assert len(merged.items) == 1


def test_an_external_id_of_films_many_years_apart_is_ignored():
    merged = merge([film("One", 1954, external=["imdb:1"]), film("Other", 2006, source="b", external=["imdb:1"])])
    assert len(merged.items) == 2
    assert all(not o.external for o in merged.origins.values())


TITLES = ("Heat", "heat!", "The Heat", "Rocky II", "Rocky 2", "Rocky", "Amélie", "Amelie", "...")
records = st.lists(
    st.builds(
        SourceRecord,
        source=st.sampled_from(("a", "b", "c")),
        source_id=st.integers(0, 10_000).map(str),
        title=st.sampled_from(TITLES),
        year=st.sampled_from((None, 1995, 1996, 1997, 2006)),
        aliases=st.lists(st.sampled_from(TITLES), max_size=1).map(tuple),
        attributes=st.fixed_dictionaries(
            {},
            optional={
                k: st.lists(st.sampled_from(("Al", "al", "Bea", "Cy")), min_size=1, max_size=2).map(tuple)
                for k in ("director", "cast")
            },
        ),
        text=st.sampled_from(("", "some", "words")),
        external=st.lists(st.sampled_from(("imdb:1", "imdb:2")), max_size=1).map(tuple),
    ),
    max_size=9,
    unique_by=lambda r: (r.source, r.source_id),
)


@settings(max_examples=150)
@given(records, st.randoms(use_true_random=False))
def test_the_order_of_records_does_not_matter(given_records, random):
    shuffled = list(given_records)
    random.shuffle(shuffled)
    assert merge(shuffled) == merge(given_records)


@settings(max_examples=300)
@given(records)
def test_merging_twice_is_merging_once(given_records):
    once = merge(given_records)
    twice = merge([record_of(item, once.origins[item.id], "catalog") for item in once.items])
    assert twice.items == once.items
    assert twice.counts.merged == {}


@settings(max_examples=200)
@given(records)
def test_no_record_is_lost_and_ids_are_distinct(given_records):
    merged = merge(given_records)
    assert len({i.id for i in merged.items}) == len(merged.items)
    kept = sorted((s, i) for o in merged.origins.values() for s, ids in o.records.items() for i in ids)
    assert kept == sorted((r.source, r.source_id) for r in given_records)
    assert sum(merged.counts.merged.values()) == len(given_records) - len(merged.items)


@settings(max_examples=200)
@given(records)
def test_an_id_stays_good_when_sources_are_added(given_records):
    merged = merge(given_records)
    for record in given_records:
        (alone,) = merge([record]).items
        holder = next(o for o in merged.origins.values() if record.source_id in o.records.get(record.source, ()))
        assert alone.id in {holder.id, *holder.other_ids}


# ---- sources ---------------------------------------------------------------------------------------------------------


def write_zipped(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()))


@pytest.fixture
def sources(tmp_path):
    write_zipped(
        tmp_path / "ml" / "movies.csv.gz",
        'movieId,title,genres\n1,"Matrix, The (1999)",Action|Sci-Fi\n2,Bambi (1942),Children|IMAX\n',
    )
    write_zipped(tmp_path / "ml" / "links.csv.gz", "movieId,imdbId,tmdbId\n1,0133093,603\n")
    write_zipped(
        tmp_path / "ml" / "tags.csv.gz", "userId,movieId,tag,timestamp\n1,1,Simulation,0\n2,1,simulation,0\n2,1,rare,0\n"
    )
    rows = [{"title": "The Matrix", "year": 1999, "cast": ["Keanu Reeves", ")"], "genres": ["Action"], "extract": "A film."}]
    write_zipped(tmp_path / "wiki" / "movies-1990s.json.gz", json.dumps(rows))
    fact = {
        "movieId": "77",
        "name": "The Matrix  (1999)",
        "genre": ["action"],
        "director": ["Lana Wachowski"],
        "imdb_id": "tt0133093",
    }
    write_zipped(tmp_path / "rd" / "movie_facts.jsonl.gz", json.dumps(fact))
    return tmp_path


def test_the_sources_are_read_and_become_one_item(sources):
    specs = (f"movielens:{sources / 'ml'}", f"wikipedia:{sources / 'wiki'}", f"redial:{sources / 'rd'}")
    readings = [item_records(bundled_movies(), "bundled"), *(read_source(s, genre_of=normal_genre) for s in specs)]
    built = build_catalog(readings, DOMAINS["movie"])
    item = built.resolve("redial:77")
    assert item is not None
    assert item.id == "matrix-1999" == built.resolve("movielens:1").id
    assert item.attributes["tag"] == ("simulation",)
    assert set(item.attributes["genre"]) == {"action", "science fiction"}
    assert item.text == "A film."
    assert "children's" in built.resolve("movielens:2").attributes["genre"]
    digests = {build_catalog(p, DOMAINS["movie"]).catalog.digest for p in permutations(readings[1:])}
    assert len(digests) == 1


def test_a_table_is_read_by_its_mapping(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text('Name,When,Tags\nHeat,1995-12-15,Sci-Fi|odd\n,2000,x\n"Nameless (2001)",?,\n')
    mapping = read_mapping(["title=Name", "year=When", "genres=Tags:|"])
    reading = read_source(f"csv:{path}", mapping=mapping, genre_of=normal_genre)
    assert [(r.title, r.year, dict(r.attributes)) for r in reading.records] == [
        ("Heat", 1995, {"genre": ("science fiction", "odd")}),
        ("Nameless", 2001, {}),
    ]
    assert reading.dropped["without a title"] == 1


def test_jsonl_and_parquet_say_the_same_as_csv(tmp_path):
    rows = [{"title": "Heat", "year": 1995, "director": ["Michael Mann"]}, {"title": "Up", "year": 2009, "director": []}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    read = [read_source(f"{k}:{tmp_path / f't.{k}'}", genre_of=normal_genre).records for k in ("jsonl", "parquet")]
    assert read[0] == read[1]


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        ("Name\nHeat\n", ["title=Titel"], "no column Titel; found Name"),
        ("id,title\n1,Heat\n1,Up\n", ["id=id", "title=title"], "two items have the id '1': Heat and Up"),
        ("title\n", [], "names no item"),
        ("", [], "is empty"),
        ("title,year\nHeat\n", [], "row 2: 1 columns instead of 2"),
    ],
)
def test_a_bad_table_is_one_clear_line(tmp_path, text, words, message):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message.replace("(", r"\(")) as caught:
        read_source(f"csv:{path}", mapping=read_mapping(words), genre_of=normal_genre)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["nope:x", "csv:", "csv:/there/is/none.csv"])
def test_an_unknown_source_is_refused(spec):
    with pytest.raises(DataError):
        read_source(spec, genre_of=normal_genre)


# ---- on disk, and the command line -----------------------------------------------------------------------------------


def test_a_catalog_is_built_shown_and_a_source_again(tmp_path, capsys):
    out, again = tmp_path / "cat", tmp_path / "again"
    assert main(["items", "build", "--sources", "bundled", "--out", str(out)]) == 0
    assert "digest" in capsys.readouterr().out
    built = BuiltCatalog.read(out)
    assert built.card["items"] == len(built.catalog) == len(bundled_movies())
    assert main(["items", "build", "--sources", f"data:{out}", "--out", str(again)]) == 0
    assert BuiltCatalog.read(again).catalog.digest == built.catalog.digest
    capsys.readouterr()
    assert main(["items", "show", "the matrix", "--catalog", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "The Matrix (1999)    matrix-1999" in shown
    assert "Keanu Reeves" in shown


def test_several_films_of_a_title_are_listed_by_year_and_misspellings_get_suggestions(tmp_path, capsys):
    path = tmp_path / "t.csv"
    path.write_text("title,year\nGodzilla,2014\nGodzilla,1954\nCasablanca,1942\n")
    out = str(tmp_path / "cat")
    assert main(["items", "build", "--sources", f"csv:{path}", "--map", "title=title", "year=year", "--out", out]) == 0
    capsys.readouterr()
    main(["items", "show", "godzilla", "--catalog", out])
    shown = capsys.readouterr().out
    assert shown.index("Godzilla (1954)") < shown.index("Godzilla (2014)")
    assert main(["items", "show", "casablancas nights", "--catalog", out]) == 1
    assert "Casablanca (1942)" in capsys.readouterr().err


def test_duplicate_ids_and_an_empty_catalog_are_refused(tmp_path):
    with pytest.raises(DataError, match="neither a catalog nor a data directory"):
        BuiltCatalog.read(tmp_path)
    (tmp_path / "catalog.jsonl").write_text("")
    with pytest.raises(DataError, match="is empty"):
        BuiltCatalog.read(tmp_path)
    (tmp_path / "catalog.jsonl").write_text('{"id": "1", "title": "Heat"}\n{"id": "1", "title": "Up"}\n')
    with pytest.raises(DataError, match="two items have the id '1'"):
        BuiltCatalog.read(tmp_path)


def test_the_real_sources_merge_into_fewer_items_whose_source_ids_resolve(shared_data):
    specs = (f"movielens:{shared_data / 'movielens/ml-latest-small'}", f"redial:{shared_data / 'redial'}")
    readings = [item_records(bundled_movies(), "bundled"), *(read_source(s, genre_of=normal_genre) for s in specs)]
    built = build_catalog(readings, DOMAINS["movie"])
    assert len(built.catalog) < 0.85 * sum(len(r.records) for r in readings)
    assert all(built.resolve(f"{r.source}:{r.source_id}") for reading in readings for r in reading.records)
