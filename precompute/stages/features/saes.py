"""Stage `saes`: dictionaries of every place that the run reads, in every size, on each model of the pair."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from lfp.errors import ConfigError
from lfp.evaluation.results import ResultRow
from lfp.ml.sae.formats import write_sae
from lfp.util.types import ROLES, SITES, Place, Role
from precompute.run.inputs import RANDOM_DECODER, read_places, sae_folder
from precompute.run.work_folder import Output, Run
from precompute.stages.features.pretrained import load_pretrained
from precompute.stages.features.scaling import count_rows, scale_latents
from precompute.stages.features.subjects import PairSubject, Subject
from precompute.stages.features.training import Training

if TYPE_CHECKING:
    from lfp.ml.models.loading import LanguageModel
    from lfp.ml.sae.autoencoders import Sae

_METRICS = ("fvu", "fvu_tuned", "fvu_base", "l0", "dead_fraction", "ce_recovered", "mmcs")
_OF_BOTH = ("shared", "change", "crosscoder")
"""Kinds of dictionaries that both models share: there is no other for the base model."""


LoadTwins = Callable[[Run], Iterator["LanguageModel"]]
"""Loads the twins of a run one after the other."""


def run(run: Run, output: Output, *, load_twins: LoadTwins | None = None) -> None:
    """Write a folder per dictionary and control, saes.json, stability.json (of the kept features), notes.json, rows.

    The rows are `sae_quality`, `latent_scaling`, and `sae_check` of pretrained dictionaries, which are checked before
    any is trained. The file scaling.npz has the factors of the kept features (`lfp.ml.sae.latent_scaling`) by the
    folder of their dictionary.

    Raises ConfigError for a pretrained dictionary of a layer or site that the run does not read, and for one of changes
    where tuning changed nothing.
    """
    _check_places(run)
    kind = run.config.sae.trained_on
    pair = PairSubject(run, "tuned", trained_on=kind)
    unchanged = check_changed(pair)
    sides = {role: pair.side(role) for role in ROLES}
    given = {role: load_pretrained(run, role, functools.partial(side.collect, "train")) for role, side in sides.items()}
    trained: dict[Role, dict[Place, list[Sae]]] = {}
    if kind in _OF_BOTH:
        trained["tuned"] = _make(run, output, pair, {})
    else:
        trained["base"] = _make(run, output, sides["base"], given["base"].saes)
        start = trained["base"] if kind == "base_finetuned" else {}
        trained["tuned"] = _make(run, output, sides["tuned"], given["tuned"].saes, start=start)
    rows: list[dict[str, Any]] = []
    stability: dict[str, list[float]] = {}
    for place, saes in trained["tuned"].items():
        while saes[-1].info.source == RANDOM_DECODER:
            control = saes.pop()
            rows += _judge(run, pair, "tuned", [control], [])
            write_sae(control, output.folder / sae_folder(RANDOM_DECODER, place))
    for role in sorted(trained, reverse=True):
        for place, saes in trained[role].items():
            stable = _match_features(saes)
            rows += _judge(run, pair, role, saes, stable)
            stability[sae_folder(role, place)] = stable
            for number, sae in enumerate(saes):
                write_sae(sae, output.folder / sae_folder(role, place, number))
    output.json("saes", rows)
    output.json("stability", stability)
    output.json("notes", [*unchanged, *(note for found in given.values() for note in found.notes)])
    kept = {role: {place: saes[0] for place, saes in found.items()} for role, found in trained.items()}
    exchanged = functools.partial(_make_first, run, output, pair.exchange(), "exchanged")
    scaling = scale_latents(output, pair, kept, exchanged)
    if load_twins is not None and kind != "change":
        scaling += _compare_twins(run, output, pair, load_twins)
    output.results(
        [
            *(row for found in given.values() for row in found.rows),
            *(
                ResultRow.from_estimate(
                    "sae_quality",
                    metric,
                    row[metric],
                    layer=row["layer"],
                    site=row["site"],
                    model=row["model"],
                    group=f"width={row['width']},seed={row['seed']}"
                    + (",random decoder" if row["source"] == RANDOM_DECODER else ""),
                )
                for row in rows
                for metric in _METRICS
                if row[metric] is not None
            ),
            *scaling,
        ]
    )


def _check_places(run: Run) -> None:
    """Raise ConfigError for a pretrained dictionary of a place that the run does not read."""
    places = read_places(run)
    layers, sites = sorted({place.layer for place in places}), dict.fromkeys(place.site for place in places)
    for pretrained in run.config.sae.pretrained:
        if pretrained.layer not in layers:
            raise ConfigError(
                f"sae.pretrained names layer {pretrained.layer}, but the selected layers are {layers}; "
                "raise layers.count or drop the entry"
            )
        if pretrained.site not in sites:
            raise ConfigError(
                f"sae.pretrained names site {pretrained.site}, but layers.sites are {', '.join(sites)}; add it there"
                " or drop the entry"
            )


def check_changed(pair: PairSubject) -> list[str]:
    """Return a note where tuning changed nothing at a place that the run reads, so that no feature there has a credit.

    That of equal models is the stage `credits`'. Raises ConfigError where changes are what dictionaries are trained on.
    """
    from lfp.ml.models.divergence import find_unchanged

    tuned, base = pair.models
    unchanged = find_unchanged(base, tuned, pair.places)
    if not unchanged:
        return []
    wanted = f'sae.trained_on "{pair.trained_on}"'
    if find_unchanged(base, tuned, [Place(base.n_layers - 1, "resid_post")]):
        if pair.trained_on == "change":
            raise ConfigError(
                f"{wanted}: base and tuned model are equal, so that there is no change to train on, and all credits are"
                " 0; name two models that differ, or set it to tuned"
            )
        return []
    writers = [Place(layer, site) for layer in range(base.n_layers) for site in SITES if site != "resid_post"]
    still = {*find_unchanged(base, tuned, writers)}
    changed = [site for site in SITES if any(place.site == site for place in writers if place not in still)]
    where = ", ".join(f"layer {place.layer} {place.site}" for place in unchanged)
    if {place.site for place in unchanged}.isdisjoint(changed):
        fix = f"set layers.sites to {', '.join(changed or ['resid_post'])}"
    else:
        fix = 'lower layers.count, with layers.by = "credit"'
    if pair.trained_on == "change":
        raise ConfigError(f"{wanted}: tuning changed nothing at {where}; {fix}, to read what it changed")
    return [f"Tuning changed nothing at {where}: no feature there has a credit; {fix}, to read what it changed."]


def _make(
    run: Run,
    output: Output,
    subject: Subject,
    pretrained: Mapping[Place, Sae],
    *,
    start: Mapping[Place, Sequence[Sae]] | None = None,
    name: str | None = None,
) -> dict[Place, list[Sae]]:
    """Train the dictionaries of every place without a pretrained one; the first of a place has the kept features.

    The first continues that of `start`, where there is one. Of the features' dictionaries, the last of a place is the
    control with a random decoder, where the config wants one. `name` is that of the checkpoint.
    """
    first = {place: saes[0] for place, saes in (start or {}).items()}
    training = Training(run, subject, first, frozenset(pretrained), output.scratch / (name or subject.role))
    made = training.by_place()
    for place, sae in pretrained.items():
        sae.info = replace(sae.info, scale=made[place].scale)
    return {
        place: [*([pretrained[place]] if place in pretrained else []), *made[place].saes] for place in subject.places
    }


def _make_first(run: Run, output: Output, pair: PairSubject, name: str) -> dict[Place, Sae]:
    """Train what the features' dictionaries are, of the first size, for any pair of models, to compare with."""

    def side(role: Role) -> Subject:
        return replace(pair.side(role), is_control=True)

    if pair.trained_on in _OF_BOTH:
        made = _make(run, output, replace(pair, is_control=True), {}, name=name)
    else:
        other: Role = "base" if pair.role == "tuned" else "tuned"
        continues = pair.trained_on == "base_finetuned"
        start = _make(run, output, side(other), {}, name=f"{name}-start") if continues else {}
        made = _make(run, output, side(pair.role), {}, start=start, name=name)
    return {place: saes[0] for place, saes in made.items()}


def _compare_twins(run: Run, output: Output, pair: PairSubject, load_twins: LoadTwins) -> list[ResultRow]:
    """Count the features that a twin alone has, against the base model and against another twin."""
    from lfp.ml.sae.latent_scaling import fit_factors

    first, second = islice(load_twins(run), 2)
    rows: list[ResultRow] = []
    for name, models in (("twin", (first, pair.models[1])), ("twin_of_twin", (first, second))):
        subject = replace(pair, given=models, stands_in=True)
        saes = _make_first(run, output, subject, name)
        rows += count_rows({place: fit_factors(sae, subject.held_out_pairs) for place, sae in saes.items()}, name)
    return rows


def _match_features(saes: Sequence[Sae]) -> list[float]:
    """Return the cosine of each kept feature with its Hungarian match in the next dictionary; their mean is the MMCS.

    A feature without a match, where the next dictionary is smaller, has 0. Empty where there is no other dictionary.
    """
    from torch.nn.functional import normalize

    from lfp.ml.sae.quality import matched_cosines

    if len(saes) == 1:
        return []
    kept, other = (normalize(sae.W_dec.detach(), dim=1) for sae in saes[:2])
    stability = np.zeros(len(kept))
    if len(kept) <= len(other):
        stability[:] = matched_cosines(kept, other)[0].numpy()
    else:
        cosines, matches = matched_cosines(other, kept)
        stability[matches.numpy()] = cosines.numpy()
    return stability.tolist()


def _judge(
    run: Run, pair: PairSubject, role: Role, saes: Sequence[Sae], stability: Sequence[float]
) -> list[dict[str, Any]]:
    from lfp.ml.sae.quality import pair_quality

    rows = []
    for number, sae in enumerate(saes):
        measured = pair_quality(sae, pair.held_out_pairs)
        mmcs = float(np.mean(stability)) if len(stability) and number < 2 else None
        recovered = None if sae.info.reads == "change" else pair.recovered_loss_of(role).measure(sae)
        figures = vars(measured) | {"ce_recovered": recovered, "mmcs": mmcs}
        is_used = role == "tuned" and number == 0 and sae.info.source != RANDOM_DECODER
        rows.append(row(sae, figures, is_used=is_used))
        run.progress("saes: judged", number + 1, len(saes), measured.fvu)
    return rows


def row(sae: Sae, measured: Mapping[str, float | None], *, is_used: bool) -> dict[str, Any]:
    """Build a row of `saes`, and its scale."""
    names = ("layer", "site", "variant", "width", "seed", "l1", "k", "l0_weight", "model", "source", "scale")
    facts = {name: getattr(sae.info, name) for name in (*names, "trained_on")}
    return facts | {"tied": sae.tied, "is_used": is_used, "fvu_tuned": None, "fvu_base": None, **measured}
