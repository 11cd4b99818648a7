"""What a run is: its config, read from TOML and `section.key=value` overrides, and kept as JSON in the manifest."""

from __future__ import annotations

import copy
import difflib
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError, model_validator

from lfp.config_sections import Section
from lfp.config_sections.cluster import NO_CLUSTER, ClusterConfig
from lfp.config_sections.commands import COMMAND_SECTIONS, LanguageModelConfig, PlantConfig, SweepConfig
from lfp.config_sections.evidence import AblationConfig, FeatureCreditsConfig, LabelsConfig, ProbesConfig
from lfp.config_sections.features import (
    CreditsConfig,
    LayersConfig,
    PretrainedSae,
    SaeConfig,
    SaeVariant,
    StatsConfig,
    TrainedOn,
)
from lfp.config_sections.models import (
    CLASSIFIER,
    LEXICON,
    PRETRAIN,
    TUNE,
    VADER,
    AdapterConfig,
    CorpusConfig,
    FeedbackConfig,
    ForecastConfig,
    ModelConfig,
    PretrainConfig,
    TuneConfig,
    TwinsConfig,
)
from lfp.errors import ConfigError
from lfp.util.dependencies import VerbModule

__all__ = [
    "CLASSIFIER",
    "COMMAND_SECTIONS",
    "LEXICON",
    "NO_CLUSTER",
    "PRETRAIN",
    "TUNE",
    "VADER",
    "AblationConfig",
    "AdapterConfig",
    "ClusterConfig",
    "CorpusConfig",
    "CreditsConfig",
    "FeatureCreditsConfig",
    "FeedbackConfig",
    "ForecastConfig",
    "LabelsConfig",
    "LanguageModelConfig",
    "LayersConfig",
    "ModelConfig",
    "PlantConfig",
    "PretrainConfig",
    "PretrainedSae",
    "ProbesConfig",
    "RunConfig",
    "SaeConfig",
    "SaeVariant",
    "Section",
    "StatsConfig",
    "SweepConfig",
    "TrainedOn",
    "TuneConfig",
    "TwinsConfig",
    "drop_retired",
    "load_config",
    "load_section",
    "parse_config",
    "parse_section",
    "with_overrides",
]


class RunConfig(Section):
    """One run, from a pair of models to a bundle."""

    title: str = "Untitled run"
    """Title of the bundle."""
    licence: str = "unstated"
    """Licence of texts and models, as the bundle states it."""
    notes: str = ""
    """Sentences that the bundle shows with its title."""
    seed: int = Field(0, ge=0)
    """Seed of everything random in a run."""
    threads: int = Field(2, ge=1)
    """CPU threads of torch: results repeat bit for bit only with the same number."""
    artifacts: bool = True
    """Keep the models and autoencoders in the bundle: the playground and `ablate` need them."""
    artifacts_dtype: Literal["float32", "float16"] = "float32"
    """Type of the weights of these models, adapters and autoencoders. `float16` takes half the space; what is computed
    with them then differs in the fourth digit from the tables, which are of the weights as trained."""
    keep_checkpoints: bool = True
    """Keep the checkpoints of `tune.keep_every` in the bundle too; its trajectory is in the tables either way."""
    keep_decoders: bool = True
    """Keep the directions of features as the table `decoders`, by which Compare matches the features of two runs of one
    base model; without it they are matched by what they fire on."""
    screen_completions: bool = False
    """Leave the completions of a prefix out of the bundle where one of them has a slur, sexual language or an address
    (`lfp.texts.screening`); figures are of all."""
    corpus: CorpusConfig = CorpusConfig()
    model: ModelConfig = ModelConfig()
    pretrain: PretrainConfig = PretrainConfig()
    tune: TuneConfig = TuneConfig()
    twins: TwinsConfig = TwinsConfig()
    forecast: ForecastConfig = ForecastConfig()
    feedback: FeedbackConfig = FeedbackConfig()
    credits: CreditsConfig = CreditsConfig()
    layers: LayersConfig = LayersConfig()
    sae: SaeConfig = SaeConfig()
    stats: StatsConfig = StatsConfig()
    feature_credits: FeatureCreditsConfig = FeatureCreditsConfig()
    probes: ProbesConfig = ProbesConfig()
    labels: LabelsConfig = LabelsConfig()
    ablation: AblationConfig = AblationConfig()
    cluster: ClusterConfig = ClusterConfig()

    @model_validator(mode="after")
    def _resolves_changes(self) -> RunConfig:
        if self.sae.trained_on == "change" and self.model.dtype != "float32":
            raise ValueError(
                f'sae.trained_on "change" needs model.dtype = "float32": {self.model.dtype} rounds changes away'
            )
        return self

    @model_validator(mode="after")
    def _shares_its_devices(self) -> RunConfig:
        uses, device = self.cluster.gpus_per_worker, self.model.device
        if self.cluster.address != NO_CLUSTER and (uses > 0) != device.startswith("cuda"):
            raise ValueError(
                f"cluster.gpus_per_worker is {uses:g} and model.device {device}; set both for GPUs, or 0 and cpu"
            )
        return self

    @model_validator(mode="after")
    def _trains_what_it_reseeds(self) -> RunConfig:
        if self.probes.dictionary_seeds > 1 and self.sae.trained_on != "tuned":
            raise ValueError(
                "probes.dictionary_seeds above 1 needs dictionaries that are trained on each model by itself, not "
                f'sae.trained_on "{self.sae.trained_on}"; set it to 1'
            )
        if self.probes.dictionary_seeds > 1 and self.sae.pretrained:
            raise ValueError(
                "probes.dictionary_seeds above 1 trains dictionaries of both models again, and sae.pretrained names "
                "some that this run does not train; set it to 1"
            )
        return self


_RETIRED: Mapping[str, Sequence[str] | None] = {
    "budget": None,
    "corpus": ["demo_zipf"],
    **dict.fromkeys(COMMAND_SECTIONS),
}
"""What only manifests of earlier versions have: whole sections (None), or keys of a section."""

_AnySection = TypeVar("_AnySection", bound=BaseModel)


def load_config(path: Path, overrides: Sequence[str] = (), *, command: str | None = None) -> RunConfig:
    """Read a run's config from a TOML file and `section.key=value` overrides.

    The file may have sections of commands; overrides may name those that `command` reads. Raises ConfigError when the
    file cannot be read or a key is unknown, missing or of the wrong type.
    """
    config = parse_config(_read_toml(path), overrides, where=str(path), command=command)
    if config.probes.triples_by == "language_model" and config.probes.triples_model is None:
        raise ConfigError(f'{path}: probes.triples_by = "language_model" needs probes.triples_model, a model\'s name')
    return config


def load_section(section: type[_AnySection], name: str, path: Path, overrides: Sequence[str] = ()) -> _AnySection:
    """Read the section that a command has in a run's TOML file, its defaults where the file has none."""
    own = [override for override in overrides if override.partition(".")[0].strip() == name]
    values = with_overrides(_read_toml(path), own).get(name, {})
    return parse_section(section, values, where=str(path), prefix=name, overrides=own)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the config ({error.strerror}); pass the path of a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML ({error}); fix that line") from error


def parse_config(
    values: Mapping[str, Any], overrides: Sequence[str] = (), *, where: str = "config", command: str | None = None
) -> RunConfig:
    """Build a run's config from plain values and overrides; sections of commands are checked and left out.

    Raises ConfigError naming the key, and the nearest known one where it is unknown.
    """
    for override in overrides:
        name = override.partition(".")[0].strip()
        if name in COMMAND_SECTIONS and command not in COMMAND_SECTIONS[name].commands:
            (reader,) = COMMAND_SECTIONS[name].commands
            raise ConfigError(f"--set {override}: only the command {reader} reads [{name}]; leave it out")
    merged = with_overrides(values, overrides)
    for name, section in COMMAND_SECTIONS.items():
        if name in merged:
            parse_section(section, merged.pop(name), where=where, prefix=name, overrides=overrides)
    return parse_section(RunConfig, merged, where=where, overrides=overrides)


def drop_retired(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a manifest without the sections and keys that only bundles of earlier versions have."""
    kept = {name: value for name, value in values.items() if _RETIRED.get(name, ()) is not None}
    for name, keys in _RETIRED.items():
        if keys and isinstance(kept.get(name), Mapping):
            kept[name] = {key: value for key, value in kept[name].items() if key not in keys}
    return kept


def parse_section(
    section: type[_AnySection],
    values: Mapping[str, Any],
    *,
    where: str,
    prefix: str = "",
    overrides: Sequence[str] = (),
) -> _AnySection:
    """Build a section from plain values. Raises ConfigError naming the key, below `prefix`, and how to fix it.

    A key that is among the `overrides` is named as after `--set`.
    """
    try:
        return section.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join([*([prefix] if prefix else []), *(str(part) for part in first["loc"])])
        typed = {override.partition("=")[0].strip() for override in overrides}
        named = f"--set {key}" if key in typed else key or "the whole"
        if first["type"] != "extra_forbidden":
            raise ConfigError(f"{where}: {named}: {first['msg']}; docs/CONFIG.md says what it takes") from error
        near = _nearest(key)
        advice = f"the nearest is {' or '.join(near)}" if near else "docs/CONFIG.md lists every key"
        if key in _RETIRED or any(key == f"{name}.{old}" for name, keys in _RETIRED.items() for old in keys or ()):
            advice = "earlier versions had it; leave it out"
        raise ConfigError(f"{where}: {named}: there is no such key; {advice}") from error


def _nearest(key: str) -> list[str]:
    """Return up to three known keys that may be meant: a similar spelling in its section, or its name elsewhere."""
    known = [*_keys(RunConfig), *COMMAND_SECTIONS]
    known += [key for name, section in COMMAND_SECTIONS.items() for key in _keys(section, f"{name}.")]
    section, _, name = key.rpartition(".")
    siblings = {other.rpartition(".")[2]: other for other in known if other.rpartition(".")[0] == section}
    if similar := difflib.get_close_matches(name, siblings, n=1, cutoff=0.7):
        return [siblings[similar[0]]]
    elsewhere = [other for other in known if other.rpartition(".")[2] == name]
    return elsewhere[:3] or difflib.get_close_matches(key, known, n=1)


def _keys(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the dotted name of every key of a section, and of the sections in it."""
    for name, field in section.model_fields.items():
        yield f"{prefix}{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _keys(field.annotation, f"{prefix}{name}.")


def with_overrides(
    values: Mapping[str, Any], overrides: Sequence[str], *, sections: Sequence[str] | None = None
) -> dict[str, Any]:
    """Return plain values of a config with `section.key=value` overrides applied; `sections` limits what they may name.

    A value is read as TOML, or as a bare string where it is not TOML. Raises ConfigError for an override that is not of
    that form or of another section.
    """
    merged = copy.deepcopy(dict(values))
    for override in overrides:
        key, equals, text = override.partition("=")
        *path, name = key.strip().split(".")
        if not equals or not name:
            raise ConfigError(f"--set {override}: not of the form key=value; write for example --set tune.steps=40")
        if sections is not None and (not path or path[0] not in sections):
            allowed = " and ".join(f"[{section}]" for section in sections)
            raise ConfigError(f"--set {override}: this command reads only {allowed}; leave it out")
        table = merged
        for section in path:
            table = table.setdefault(section, {})
            if not isinstance(table, dict):
                raise ConfigError(f"--set {override}: {section} is a key, not a section; name for example tune.steps")
        try:
            table[name] = tomllib.loads(f"value = {text.strip()}")["value"]
        except tomllib.TOMLDecodeError:
            table[name] = text.strip()
    return merged


sys.modules[__name__].__class__ = VerbModule  # called, this module is the verb `lfp.config`
