"""The config: what is accepted, what is refused, and whether the refusal says where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from lfp.config import RunConfig, SweepConfig, load_config, load_section, parse_config
from lfp.config_page import build_page, write_page
from lfp.errors import ConfigError
from precompute import presets
from precompute.commands.basic import config
from precompute.presets import NAMES


def toml(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    assert load_config(toml(tmp_path, "")) == RunConfig()


def test_a_file_sets_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    config = load_config(toml(tmp_path, 'title = "Own"\n[tune]\nsteps = 7\nprefix_tokens = [3, 5]\n'))
    assert (config.title, config.tune.steps, config.tune.prefix_tokens) == ("Own", 7, (3, 5))
    assert config.tune.beta == RunConfig().tune.beta and config.sae == RunConfig().sae


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("speed = 3", "speed"),
        ("[tune]\nstepz = 3", "tune.stepz"),
        ('[tune]\nsteps = "many"', "tune.steps"),
        ("tune = 3", "tune"),
        ("title = 3", "title"),
        ("seed = -1", "seed"),
        ("seed = 0.5", "seed"),
        ("[corpus]\nheld_out_share = 1.0", "corpus.held_out_share"),
        ('[tune]\nmethod = "ppo"', "tune.method"),
        ("[tune]\nprefix_tokens = [1, 2, 3]", "tune.prefix_tokens"),
        ("[budget]\nbase = 3", "budget"),
    ],
)
def test_a_wrong_key_is_named_with_its_file(tmp_path: Path, text: str, key: str) -> None:
    path = toml(tmp_path, text)
    with pytest.raises(ConfigError, match=rf"{key}\b") as caught:
        load_config(path)
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "overrides", "says"),
    [
        ("[tune]\nstepz = 3", [], "tune.stepz: there is no such key; the nearest is tune.steps"),
        ("[tunes]\nsteps = 3", [], "tunes: there is no such key; the nearest is tune"),
        (
            "steps = 3",
            [],
            "steps: there is no such key; the nearest is pretrain.steps or tune.steps or sae.steps",
        ),
        ("[tune]\nl1 = 3", [], "tune.l1: there is no such key; the nearest is sae.l1 or sweep.l1"),
        (
            "",
            ["sae.expansions=[2]"],
            "--set sae.expansions: there is no such key; the nearest is sae.expansion",
        ),
        ("", ["tune.stepz=3"], "--set tune.stepz: there is no such key; the nearest is tune.steps"),
        ("[budget]\nbase = 3", [], "budget: there is no such key; earlier versions had it; leave it out"),
        ("qqq = 3", [], "qqq: there is no such key; docs/CONFIG.md lists every key"),
    ],
)
def test_an_unknown_key_is_named_with_its_file_and_the_nearest_key(
    tmp_path: Path, text: str, overrides: list[str], says: str
) -> None:
    path = toml(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    assert str(caught.value) == f"{path}: {says}"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[pretrain]\nd_model = 100\nn_heads = 3", "d_model 100 is not a multiple of n_heads 3"),
        ('[tune]\nmethod = "dpo"', "tune.pairs"),
        ("[tune]\nprefix_tokens = [5, 2]", "prefix_tokens"),
        ("[tune]\nprefix_tokens = [0, 2]", "prefix_tokens"),
        ("[sae]\nexpansion = []", "expansion"),
        ("[sae]\nexpansion = [2, 0]", "expansion"),
        ("[[sae.pretrained]]\nlayer = 1", "name it by folder, or by release and sae_id together"),
        ('[[sae.pretrained]]\nlayer = 1\nrelease = "r"', "by release and sae_id together"),
        ('[[sae.pretrained]]\nlayer = 1\nfolder = "f"\nrelease = "r"\nsae_id = "s"', "by release and sae_id together"),
        ('[feedback]\nreward = "own"', 'reward "own" is none of vader, lexicon and classifier'),
        ('[feedback]\nreward = "own:"', "module:function"),
        ('[feedback]\nreward = "own:a b"', "module:function"),
        ('[feedback]\nreward = "classifier"', "go together"),
        ('[feedback]\nclassifier = "org/name"', "go together"),
        ('[probes]\ntriples_by = "language_model"', "probes.triples_model"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_config(toml(tmp_path, text))


@pytest.mark.parametrize(
    ("override", "section", "name", "value"),
    [
        ("tune.steps=40", "tune", "steps", 40),
        (" tune.steps = 40 ", "tune", "steps", 40),
        ("tune.learning_rate=1e-4", "tune", "learning_rate", 1e-4),
        ("corpus.source=my reviews.txt", "corpus", "source", "my reviews.txt"),
        ('corpus.source="my reviews.txt"', "corpus", "source", "my reviews.txt"),
        ("model.base=../models/a=b", "model", "base", "../models/a=b"),
        ("model.prepend_bos=false", "model", "prepend_bos", False),
        ("sae.expansion=[1, 8]", "sae", "expansion", (1, 8)),
        ("corpus.source=", "corpus", "source", ""),
    ],
)
def test_set_takes_every_kind_of_value(override: str, section: str, name: str, value: object) -> None:
    assert getattr(getattr(parse_config({}, [override]), section), name) == value


def test_set_beats_the_file_and_the_last_one_wins(tmp_path: Path) -> None:
    path = toml(tmp_path, "seed = 1\n[tune]\nsteps = 7\nbeta = 0.5\n")
    config = load_config(path, ["tune.steps=8", "seed=2", "tune.steps=9"])
    assert (config.seed, config.tune.steps, config.tune.beta) == (2, 9, 0.5)


@pytest.mark.parametrize("override", ["seed", "=3", "seed.deep=3", "tune.stepz=3", "tune=3", "tune.steps=many"])
def test_a_set_that_cannot_be_is_refused(override: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({"seed": 1}, [override])
    assert override.split("=")[0] in str(caught.value)


def test_overrides_leave_the_values_they_were_given_alone() -> None:
    values = {"tune": {"steps": 1}}
    parse_config(values, ["tune.steps=2"])
    assert values == {"tune": {"steps": 1}}


def test_a_file_that_is_not_toml_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run\.toml: not valid TOML .*line 2"):
        load_config(toml(tmp_path, "seed = 1\ntitle = open\n"))


def test_a_file_in_another_encoding_says_so(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_bytes('title = "café"'.encode("latin-1"))
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_config(tmp_path / "run.toml")


@pytest.mark.parametrize("name", ["absent.toml", "."])
def test_a_file_that_cannot_be_read_says_so(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot read the config"):
        load_config(tmp_path / name)


def test_json_gives_the_config_back() -> None:
    run = parse_config(
        {"title": "Ünïcode", "sae": {"expansion": [3], "l1": 0.1}, "tune": {"pairs": "p.jsonl", "method": "dpo"}}
    )
    assert parse_config(json.loads(run.model_dump_json())) == run


@pytest.mark.parametrize(
    "section", ["[sweep]\nk = [3]", "[plant]\nleast_share = 0.005", '[language_model]\nbase_url = "http://x/v1"']
)
def test_a_section_of_a_command_is_not_part_of_the_run(tmp_path: Path, section: str) -> None:
    assert load_config(toml(tmp_path, section)) == RunConfig()


def test_a_command_reads_its_own_section_with_overrides(tmp_path: Path) -> None:
    path, overrides = toml(tmp_path, "[sweep]\nk = [3]\nl1 = [0.5]"), ["sweep.k=[4]", "sae.k=5"]
    assert load_section(SweepConfig, "sweep", path, overrides) == SweepConfig(k=(4,), l1=(0.5,))
    assert load_config(path, overrides, command="sweep").sae.k == 5
    with pytest.raises(ConfigError, match=r"--set sweep.k=\[4\]: only the command sweep reads \[sweep\]"):
        load_config(path, overrides, command="run")


def test_a_wrong_key_in_the_section_of_another_command_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"sweep.kk: there is no such key; the nearest is sweep.k"):
        load_config(toml(tmp_path, "[sweep]\nkk = [3]"))


@pytest.mark.parametrize("reward", ["vader", "lexicon", "module:function", "package.module:function"])
def test_a_reward_is_named_in_these_ways(reward: str) -> None:
    assert parse_config({"feedback": {"reward": reward}}).feedback.reward == reward


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        RunConfig().tune.steps = 3


def test_the_page_of_keys_is_current_and_says_what_each_means() -> None:
    page = Path(__file__).parents[2] / "docs" / "CONFIG.md"
    assert page.read_text(encoding="utf-8") == build_page(), "run make docs"
    rows = [line.split(" | ") for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert len(rows) > 100 and all(len(row) == 4 and row[3].strip(" |") for row in rows)


def test_a_page_that_is_not_current_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "CONFIG.md"
    assert write_page("keys", ["--check", str(file)], source="the keys") == 1
    assert "differs from the keys; run make docs" in capsys.readouterr().err
    assert [write_page("keys", [*option, str(file)], source="the keys") for option in ([], ["--check"])] == [0, 0]
    assert file.read_text() == "keys"


@pytest.mark.parametrize("preset", [None, *NAMES])
def test_a_printed_config_reads_back_as_the_same_config(preset: str | None, tmp_path: Path) -> None:
    same = load_config(presets.preset(preset)) if preset else RunConfig()
    assert load_config(toml(tmp_path, config(preset))) == same


def test_changes_are_read_in_full_precision() -> None:
    with pytest.raises(ConfigError, match=r'trained_on "change" needs model\.dtype = "float32"'):
        parse_config({"sae": {"trained_on": "change"}, "model": {"dtype": "bfloat16"}})


def test_dictionaries_that_the_run_does_not_train_have_no_other_seeds() -> None:
    pretrained = [{"model": "tuned", "layer": 1, "folder": "saes/one"}]
    with pytest.raises(ConfigError, match="dictionary_seeds above 1 trains dictionaries"):
        parse_config({"probes": {"dictionary_seeds": 3}, "sae": {"pretrained": pretrained}})
    assert parse_config({"probes": {"dictionary_seeds": 3}}).probes.dictionary_seeds == 3
