"""Configs: flags, TOML, defaults, and one clear line for whatever is wrong."""

import tomllib
from pathlib import Path

import pytest

from interplay import config as configs
from interplay.config import EvaluateConfig, OptimizeConfig, ReportConfig, SimulateConfig, TrainConfig, parse_config, to_toml
from interplay.errors import ConfigError

BASE = ["user", "--data", "d", "--out", "o"]


def parse(*args, cls=TrainConfig):
    return parse_config(cls, list(args), "interplay train")


def test_flags_fill_fields_nested_ones_with_dots():
    made = parse(*BASE, "--learning-rate", "1e-3", "--tiny.layers", "2", "--with-persona")
    assert (made.learning_rate, made.tiny.layers, made.with_persona, made.role) == (1e-3, 2, True, "user")


def test_a_list_takes_several_values_behind_one_flag_or_the_flag_several_times():
    assert parse("user", "--data", "a", "b", "--out", "o").data == [Path("a"), Path("b")]
    assert parse("user", "--data", "a", "--data", "b", "--out", "o").data == [Path("a"), Path("b")]


def test_positional_lists_keep_their_order():
    assert parse("b", "a", "--out", "o", cls=ReportConfig).runs == [Path("b"), Path("a")]


def test_a_toml_file_and_flags_are_the_same_object_and_flags_win(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text('data = ["d"]\nout = "o"\nlearning_rate = 0.5\nseed = 3\n[tiny]\nwidth = 64\n')
    made = parse("user", "--config", str(file), "--seed", "4")
    assert (made.learning_rate, made.seed, made.tiny.width, made.tiny.layers) == (0.5, 4, 64, 4)
    assert made == parse(*BASE, "--learning-rate", "0.5", "--seed", "4", "--tiny.width", "64").model_copy(
        update={"config": file}
    )


@pytest.mark.parametrize("name", ["USER", "DATA", "OUT", "SEED", "MODEL"])
def test_environment_variables_change_nothing(monkeypatch, name):
    monkeypatch.setenv(name, "surprise")
    assert parse(*BASE).seed == 0
    with pytest.raises(ConfigError, match="user is missing"):
        parse("--recommender", "r", "--scenarios", "s", "--out", "o", cls=SimulateConfig)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([*BASE, "--learning-rat", "1"], r"unknown flag --learning-rat \(did you mean --learning-rate\?\)"),
        ([*BASE, "--tiny.layer", "1"], r"unknown flag --tiny.layer \(did you mean --tiny.layers\?\)"),
        ([*BASE, "--learning-rate", "fast"], "learning_rate: .*got 'fast'"),
        ([*BASE, "--learning-rate", "-1"], "learning_rate: .*greater than 0"),
        (["usr", "--data", "d", "--out", "o"], "role: .*'user', 'recommender' or 'base'"),
        (["user", "--out", "o"], "data is missing"),
        ([*BASE, "--config", "nowhere.toml"], "there is no such file"),
    ],
)
def test_each_wrong_flag_is_one_line_that_names_it(args, message):
    with pytest.raises(ConfigError, match=message) as caught:
        parse(*args)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('learning_rate = "fast"', "learning_rate: .*got 'fast'"),
        ("lerning_rate = 1", r"unknown field lerning_rate in the TOML file \(did you mean learning_rate\?\)"),
        ("[tiny]\nlayer = 1", r"unknown field tiny.layer"),
        ("seed = ", "not TOML"),
        ('tiny = "small"', "tiny"),
    ],
)
def test_each_wrong_toml_field_is_one_line_that_names_it(tmp_path, text, message):
    file = tmp_path / "c.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        parse(*BASE, "--config", str(file))


def test_the_printed_config_is_toml_that_reads_back_as_the_same_config(tmp_path):
    made = parse(*BASE, "--tiny.layers", "2", "--learning-rate", "2e-4")
    file = tmp_path / "c.toml"
    file.write_text(to_toml(made.model_dump(mode="json")))
    assert tomllib.loads(file.read_text())["tiny"]["layers"] == 2
    assert parse("--config", str(file)).record() == made.record()


@pytest.mark.parametrize("flag", ["out", "resume", "overwrite", "dry_run", "config"])
def test_what_concerns_one_invocation_alone_is_not_part_of_the_record(flag):
    assert flag not in parse(*BASE).record()


ALL = [c for c in vars(configs).values() if isinstance(c, type) and issubclass(c, (configs.Config, configs.Section))]


@pytest.mark.parametrize("config_class", ALL, ids=lambda c: c.__name__)
def test_every_field_has_a_docstring_which_is_its_help(config_class):
    undocumented = [
        n for n, f in config_class.model_fields.items() if not f.description and not isinstance(f.default, configs.Section)
    ]
    assert undocumented == []


def test_help_shows_the_field_docstrings(capsys):
    with pytest.raises(SystemExit) as caught:
        parse_config(EvaluateConfig, ["--help"], "interplay evaluate")
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "usage: interplay evaluate" in text
    assert "give every user the target attributes of another conversation" in text


@pytest.mark.parametrize("recipe", sorted(Path("recipes").glob("*.toml")), ids=lambda p: p.name)
def test_every_recipe_parses(recipe):
    given = ["--data", "d", "--out", "o", "--config", str(recipe)]
    if "algorithm" in tomllib.loads(recipe.read_text()):
        made = parse("--recommender", "r", "--users", "a", "--held-out", "b", "c", *given, cls=OptimizeConfig)
        assert made.learning_rate > 0
    else:
        assert parse("user", *given).learning_rate > 0


def test_models_are_constrained_unless_told_otherwise() -> None:
    given = ["--user", "agenda", "--recommender", "agenda", "--scenarios", "d", "--out", "o"]
    config = parse_config(SimulateConfig, given, "interplay simulate")
    assert (config.constrained, config.exclude_rejected) == (True, False)
    config = parse_config(SimulateConfig, [*given, "--no-constrained", "--exclude-rejected"], "interplay simulate")
    assert (config.constrained, config.exclude_rejected) == (False, True)
    assert config.record()["constrained"] is False
