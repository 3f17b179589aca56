"""The trie of titles: what it holds, what is left of it, and its cache."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interplay.formats import trie as trie_module
from interplay.formats.tags import title_tags
from interplay.formats.tokens import TokenFormat, add_structural_tokens
from interplay.formats.trie import TitlesLeft, TitleTrie, load_trie
from interplay.training.backbone import train_tokenizer
from makers import MOVIE

CLOSING = 99
rows_of_ids = st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=5), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def form() -> TokenFormat:
    tokenizer = train_tokenizer(["Alien Aliens Alien (1979) Heat (1995) The Thing"] * 3, 320)
    add_structural_tokens(tokenizer, MOVIE)
    return TokenFormat(tokenizer, MOVIE)


def titles_in(trie: TitleTrie, node: int = 0, path: tuple[int, ...] = ()) -> set[tuple[int, ...]]:
    begin, end = trie.first[node], trie.first[node + 1]
    if begin == end:
        return {path} if node else set()
    return {found for child in range(begin, end) for found in titles_in(trie, child, (*path, int(trie.token[child])))}


@given(rows_of_ids)
def test_the_trie_holds_every_title_once_and_nothing_else(rows: list[list[int]]) -> None:
    trie = TitleTrie.build(rows, CLOSING)
    wanted = {(*row, CLOSING) for row in rows}
    assert titles_in(trie) == wanted
    assert trie.num_titles == len(wanted)
    assert all(trie.path(title) for title in wanted)
    assert trie.path(()) is None
    assert trie.path((*rows[0],)) is None
    assert trie.path((7, CLOSING)) is None


@given(rows_of_ids, st.data())
def test_what_may_come_next_is_exactly_what_leads_to_a_title_that_is_left_and_fits(rows, data) -> None:
    trie = TitleTrie.build(rows, CLOSING)
    everything = sorted(titles_in(trie))
    excluded = data.draw(st.sets(st.sampled_from(everything)))
    left = [title for title in everything if title not in excluded]
    view = TitlesLeft(trie, [path for title in excluded if (path := trie.path(title))])
    node, written = 0, ()
    for _ in range(data.draw(st.integers(0, 5))):
        room = data.draw(st.integers(0, 7))
        going_on = [t[len(written) :] for t in left if t[: len(written)] == written and len(t) > len(written)]
        assert view.next_ids(node, room).tolist() == sorted({t[0] for t in going_on if len(t) <= room})
        if not going_on:
            assert view.shortest(node) > 1000
            break
        assert view.shortest(node) == min(map(len, going_on))
        index = data.draw(st.sampled_from(going_on))[0]
        node, written = trie.child(node, index), (*written, index)
        if index == CLOSING:
            break


def test_a_trie_of_nothing_leads_nowhere() -> None:
    trie = TitleTrie.build([[]], CLOSING)
    assert (trie.num_titles, len(trie.token)) == (0, 1)
    assert TitlesLeft(trie).next_ids(0, 10).tolist() == []


def test_following_a_whole_catalog_shares_its_arrays() -> None:
    trie = TitleTrie.build([[1, 2], [1, 3], [4]], CLOSING)
    assert np.shares_memory(TitlesLeft(trie).next_ids(0, 100), trie.token)


def test_titles_are_spelled_as_in_training_and_prefixes_are_told_apart(form: TokenFormat, tmp_path: Path) -> None:
    titles = ["Alien", "Aliens", "Alien (1979)", "Alien", " Alien ", "", "  ", "<movie_title>", "é", "漢字 😀", "x"]
    trie = load_trie(form, titles, cache=tmp_path)
    closing = form.tag_id(title_tags(MOVIE)[1])
    wanted = {
        (*form.encode_text(t), closing) for t in ("Alien", "Aliens", "Alien (1979)", "<movie_title>", "é", "漢字 😀", "x")
    }
    assert titles_in(trie) == wanted


def test_a_built_trie_is_kept_by_its_content(form: TokenFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_trie(form, ["Heat", "Alien"], cache=tmp_path)
    monkeypatch.setattr(trie_module.TitleTrie, "build", lambda *_: pytest.fail("built again"))
    again = load_trie(form, ["Alien", "Heat", "Heat"], cache=tmp_path)
    assert titles_in(again) == titles_in(first)
    assert [p.suffix for p in tmp_path.iterdir()] == [".npz"]
    with pytest.raises(pytest.fail.Exception):
        load_trie(form, ["Alien", "Heat", "Up"], cache=tmp_path)


def test_another_tokenizer_has_another_trie(form: TokenFormat, tmp_path: Path) -> None:
    load_trie(form, ["Heat"], cache=tmp_path)
    tokenizer = train_tokenizer(["other words entirely"] * 3, 300)
    add_structural_tokens(tokenizer, MOVIE)
    load_trie(TokenFormat(tokenizer, MOVIE), ["Heat"], cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


@settings(max_examples=15)
@given(st.data())
def test_a_damaged_cache_is_built_again(form: TokenFormat, tmp_path_factory: pytest.TempPathFactory, data) -> None:
    cache = tmp_path_factory.mktemp("cache")
    wanted = titles_in(load_trie(form, ["Heat", "Alien", "Aliens"], cache=cache))
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = data.draw(st.sampled_from([whole[:at], whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :], b"nonsense"]))
    file.write_bytes(damaged)
    assert titles_in(load_trie(form, ["Heat", "Alien", "Aliens"], cache=cache)) == wanted
    assert titles_in(TitleTrie.load(file)) == wanted


def test_a_cache_that_fits_no_trie_is_refused(tmp_path: Path) -> None:
    trie = TitleTrie.build([[1], [2]], CLOSING)
    arrays = {name: getattr(trie, name) for name in ("token", "leaves", "shortest", "roomy")}
    np.savez(tmp_path / "a.npz", first=trie.first[:-1], **arrays)
    with pytest.raises(ValueError, match="do not fit together"):
        TitleTrie.load(tmp_path / "a.npz")


def test_a_cache_that_can_t_be_written_is_done_without(form: TokenFormat, tmp_path: Path, caplog) -> None:
    (tmp_path / "file").write_text("in the way")
    assert load_trie(form, ["Heat"], cache=tmp_path / "file").num_titles == 1
    assert "not cached" in caplog.text


def test_the_cache_lies_where_the_environment_says(form: TokenFormat, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("INTERPLAY_CACHE", str(tmp_path))
    load_trie(form, ["Heat"])
    assert len(list((tmp_path / "titles").iterdir())) == 1
