"""Stage `feature_credits`: what each feature carries of the implicit reward of texts, and which tokens it promotes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lfp.bundle.schema import as_table
from lfp.evaluation.feature_credits import (
    PATHS,
    TextCredits,
    combine,
    control_results,
    cost_results,
    credit_columns,
    flags_of,
    largest_results,
    share_results,
    sum_rows,
)
from lfp.evaluation.statistics.resampling import Draws, number_pairs
from lfp.evaluation.twin_features import TWIN_COLUMNS, TwinFeatures, sum_texts
from lfp.util.types import Floats, Place
from precompute.run.executor import Report, Shelf, Task, map_in_order, split_rows
from precompute.run.inputs import RANDOM_DECODER, load_dictionary, load_pair, name_texts, sae_folder
from precompute.run.work_folder import Output, Run
from precompute.stages.models.twins import load_compared, load_twins

if TYPE_CHECKING:
    from lfp.ml.implicit_reward.feature_credits import Reference
    from lfp.ml.models.loading import LanguageModel
    from lfp.ml.models.tokenization import TokenizedText
    from lfp.ml.sae.autoencoders import Dictionary, Sae


def run(run: Run, output: Output) -> None:
    """Write the tables feature_credits, credit_sums and credits, and the rows `feature_credits`.

    Empty where the config wants none, or where no single module writes what the dictionaries read.
    """
    rows = choose_texts(run)
    dictionary = load_dictionary(run, "tuned")
    if not rows or all(place.site == "resid_post" for place in dictionary.places):
        for name in ("feature_credits", "credit_sums", "credits"):
            output.table(name, as_table(name, []))
        output.results([])
        return
    pair = load_pair(run, exact=True)
    text_ids = np.array([row["text_id"] for row in rows], np.int64)
    reference = _read_reference(run, dictionary, text_ids.tolist())
    splitter = FeatureSplitter(run, pair, dictionary, _load_controls(run, dictionary))
    found = _split_texts(splitter, rows, Shelf(output.scratch, "tuned"), reference=reference)
    place_of, places = dictionary.place_of, dictionary.places
    entries = [_entry_row(text_id, text) for text_id, text in zip(text_ids.tolist(), found, strict=True)]
    sums = [sum_rows(text_id, text, places, place_of) for text_id, text in zip(text_ids.tolist(), found, strict=True)]
    output.table("feature_credits", as_table("feature_credits", entries).sort_by("text_id"))
    of_texts = as_table("credit_sums", [row for of_text in sums for row in of_text])
    output.table("credit_sums", of_texts.sort_by([(key, "ascending") for key in ("text_id", "layer", "site", "path")]))
    groups, counted = number_pairs([row["pair_id"] for row in rows]), [row["counted"] for row in rows]
    token_ids, stated = [np.array(row["token_ids"]) for row in rows], [row["stated"] for row in rows]
    split = combine(found, token_ids, stated, counted=counted, groups=groups)
    spelled = [pair[0].tokenizer.decode([token]) for token in range(pair[0].d_vocab)]
    columns = credit_columns(split, n_features=dictionary.n_features, spelled=spelled, text_ids=text_ids)
    of_twins = _compare_twins(splitter, rows, output.scratch, found)
    compared = (
        {name: pa.nulls(dictionary.n_features) for name in TWIN_COLUMNS} if of_twins is None else of_twins.columns()
    )
    output.table("credits", as_table("credits", columns | compared))
    draws = Draws(run.config.probes.bootstraps, run.config.probes.permutations, run.config.seed)
    n_bos = [found[i].modules.shape[2] - len(row["token_ids"]) for i, row in enumerate(rows)]
    by_token = []
    for number in range(len(places)):
        parts = [text.by_token(place_of, number, n_bos=n) for text, n in zip(found, n_bos, strict=True)]
        parts = [(part[0][:-1][flags[1:]], part[1][:-1][flags[1:]]) for part, flags in zip(parts, counted, strict=True)]
        by_token.append((np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])))
    all_sums = np.stack([text.place_sums(place_of) for text in found])
    output.results(
        [
            *share_results(all_sums, by_token, places, draws, groups=groups),
            *control_results(found, places, draws, groups=groups),
            *cost_results(found),
            *largest_results(columns, len(found)),
            *([] if of_twins is None else of_twins.rows()),
        ]
    )


def choose_texts(run: Run) -> list[dict[str, Any]]:
    """Choose texts whose activations are kept, held-out ones first: columns of `texts`, stated feedback, and flags.

    `stated` [tokens] is the stated feedback, 0 where there is none; `counted` [tokens] whether the token is of a
    response, all where none is marked.
    """
    texts = run.table("texts", "texts")
    scores = run.table("texts", "token_scores").select(["text_id", "feedback", "in_response"])
    kept = texts.filter(pc.is_in(texts["text_id"], run.table("texts", "activations")["text_id"]))
    names = ["text_id", "pair_id", "split", "text", "token_ids", "token_starts"]
    order = sorted(kept.select(names).to_pylist(), key=lambda row: (row["split"] != "held_out", row["text_id"]))
    scored = {row["text_id"]: row for row in scores.filter(pc.is_in(scores["text_id"], kept["text_id"])).to_pylist()}
    chosen = order[: run.config.feature_credits.texts]
    for row in chosen:
        score = scored[row["text_id"]]
        row["stated"] = _fill(score["feedback"])
        row["counted"] = flags_of(score["in_response"], len(row["token_ids"]))
    return chosen


def tokens_of(row: dict[str, Any]) -> TokenizedText:
    """Return a row of `texts` as the models read it."""
    from lfp.ml.models.tokenization import TokenizedText

    return TokenizedText(row["text"], tuple(row["token_ids"]), tuple(row["token_starts"]), truncated=False)


@dataclass(frozen=True)
class FeatureShard:
    """Rows of texts, and what the ledger says of them and the pair."""

    rows: Sequence[dict[str, Any]]
    reference: Reference | None


@dataclass(frozen=True)
class FeatureSplitter:
    """The base model and another, a dictionary, and controls whose features texts are split over beside its own."""

    run: Run
    pair: tuple[LanguageModel, LanguageModel]
    dictionary: Dictionary
    controls: Mapping[Place, Sae]

    def __call__(self, shard: FeatureShard, report: Report) -> list[TextCredits]:
        """Split a shard's texts."""
        from lfp.ml.implicit_reward.feature_credits import feature_credits

        found, settings = list[TextCredits](), self.run.config.feature_credits
        with name_texts([row["text_id"] for row in shard.rows]):
            for text in feature_credits(
                *self.pair,
                self.dictionary,
                [tokens_of(row) for row in shard.rows],
                nodes=settings.nodes,
                batch_texts=settings.batch_texts,
                prepend_bos=self.run.config.model.prepend_bos,
                counted=[row["counted"] for row in shard.rows],
                reference=shard.reference,
                controls=self.controls,
            ):
                found.append(text)
                report(1)
        return found


@dataclass(frozen=True)
class LoadFeatureSplitter:
    """Loads in another process the pair, dictionary and controls; or the base model and the twin of this number."""

    run: Run
    twin: int | None

    def __call__(self) -> FeatureSplitter:
        """Load models and dictionaries."""
        dictionary = load_dictionary(self.run, "tuned")
        controls = _load_controls(self.run, dictionary) if self.twin is None else {}
        return FeatureSplitter(self.run, load_compared(self.run, self.twin), dictionary, controls)


def _split_texts(
    splitter: FeatureSplitter,
    rows: Sequence[dict[str, Any]],
    shelf: Shelf,
    *,
    twin: int | None = None,
    reference: Reference | None = None,
) -> list[TextCredits]:
    """Split texts over features, and over controls'; `reference` is what the ledger says of them and this pair."""
    run = splitter.run
    spans = split_rows(len(rows), size=run.config.cluster.shard_texts, batch=run.config.feature_credits.batch_texts)
    shards = [
        FeatureShard(rows[span.start : span.stop], reference and reference.take(slice(span.start, span.stop)))
        for span in spans
    ]
    load = LoadFeatureSplitter(run.for_worker(), twin)
    task = Task("feature credits: texts", [len(span) for span in spans], load, shelf, run.progress)
    return [text for found in map_in_order(run.executor, splitter, shards, task) for text in found]


def _compare_twins(
    splitter: FeatureSplitter, rows: list[dict[str, Any]], scratch: Path, found: list[TextCredits]
) -> TwinFeatures | None:
    """Split the first texts for every twin, and compare features' credits; None without twins or texts for them."""
    run, base, n_features = splitter.run, splitter.pair[0], splitter.dictionary.n_features
    rows = rows[: run.config.feature_credits.twin_texts]
    if not rows or not run.json("twins", "twins"):
        return None
    n_tokens = sum(row["counted"].sum() for row in rows)
    sums = [sum_texts(found[: len(rows)], n_features)]
    for number, twin in enumerate(load_twins(run)):
        of_twin = replace(splitter, pair=(base, twin), controls={})
        split = _split_texts(of_twin, rows, Shelf(scratch, f"twin-{number}"), twin=number)
        sums.append(sum_texts(split, n_features))
    credits, sizes = (np.array(values) / n_tokens for values in zip(*sums, strict=True))
    return TwinFeatures.compare(credits, sizes)


def _load_controls(run: Run, dictionary: Dictionary) -> dict[Place, Sae]:
    """Load the dictionaries with a random decoder, as far as they read what the dictionary of their place does."""
    from lfp.ml.sae.formats import load_sae

    controls = {}
    for place, sae in zip(dictionary.places, dictionary.saes, strict=True):
        folder = run.folder("saes") / sae_folder(RANDOM_DECODER, place)
        if folder.is_dir():
            control = load_sae(folder).to(run.config.model.device)
            if control.info.reads == sae.info.reads:
                controls[place] = control
    return controls


def _read_reference(run: Run, dictionary: Dictionary, text_ids: list[int]) -> Reference:
    """Read what the ledger says of texts and of the modules that write at the dictionary's places."""
    from lfp.ml.implicit_reward.feature_credits import KINDS, Reference

    table = run.table("credits", "module_credits")
    table = table.filter(pc.equal(table["path"], PATHS[0]))
    known = {text_id: i for i, text_id in enumerate(text_ids)}
    column = {(place.layer, KINDS[place.site]): i for i, place in enumerate(dictionary.places) if place.site in KINDS}
    credits, size = np.full((len(text_ids), len(dictionary.places)), np.nan), np.zeros(len(text_ids))
    for row in table.filter(pc.is_in(table["text_id"], pa.array(text_ids, pa.int64()))).to_pylist():
        text, place = known[row["text_id"]], column.get((row["layer"], row["module"]))
        if not size[text]:
            credits[text] = 0.0  # of a module that did not change there is no row
        size[text] += abs(row["credit"])
        if place is not None:
            credits[text, place] = row["credit"]
    return Reference(credits, size, run.config.credits.tolerance, run.config.credits.max_nodes)


def _entry_row(text_id: int, text: TextCredits) -> dict[str, Any]:
    """Return a text's row of the table `feature_credits`, its entries by position and feature."""
    order = np.lexsort((text.features, text.positions))
    return {
        "text_id": text_id,
        "positions": text.positions[order],
        "feature_ids": text.features[order],
        "credits": text.credits[0, order].astype(np.float32),
        "next_credits": text.credits[1, order].astype(np.float32),
    }


def _fill(values: list[float | None] | None) -> Floats:
    """Return values with 0 where there is none."""
    filled: Floats = np.nan_to_num(pa.array(values or [], pa.float64()).to_numpy(zero_copy_only=False), nan=0.0)
    return filled
