"""Open a bundle and read it: the class `Bundle`; and open an autoencoder."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import duckdb
import pyarrow as pa

from lfp.api.feature import Feature, Tables
from lfp.bundle import queries
from lfp.bundle.manifest import Manifest, read_table
from lfp.bundle.queries.common import Order
from lfp.bundle.schema import BY_NAME, TABLES
from lfp.bundle.store.connection import Limits, Parameters, Store
from lfp.bundle.validation import validate
from lfp.errors import BundleError, ConfigError, ModelError, NotInBundleError
from lfp.util.dependencies import jobs_packages, verb
from lfp.util.object_stores import fetch_copy, is_address
from lfp.util.types import SITE_NAMES, Site

if TYPE_CHECKING:
    from lfp.api.feature import Frame
    from lfp.ml.interventions.bundle_models import Live
    from lfp.ml.sae.autoencoders import Sae
    from precompute.commands.basic import Report

T = TypeVar("T")


def open_bundle(path: str | Path, *, memory_limit: str | None = None, threads: int = 2) -> Bundle:
    """Open the bundle in a folder, or at an address.

    Args:
        path: Folder of the bundle, or its address in an object store, such as `"s3://bucket/run"`. Of a bundle there,
            tables are fetched when they are first read, into a cache on this machine.
        memory_limit: Memory that queries may use, such as `"512MB"`; by default 80 % of the machine's.
        threads: Threads of one query.

    Raises BundleError where there is no bundle, or where it is broken, half copied or of another version.
    """
    place = str(path) if is_address(path) else Path(path).expanduser()
    return Bundle(Store.open(place, limits=Limits(memory_limit, threads)))


def load_sae(
    name: str | Path,
    *,
    layer: int | None = None,
    site: Site | None = None,
    sae_id: str | None = None,
    revision: str | None = None,
) -> Sae:
    """Load a sparse autoencoder from a folder, an address, or `org/repo/folder` on the hub, onto the CPU.

    The folders that runs write are read, and those of SAELens, sparsify, Gemma Scope, Llama Scope and
    dictionary_learning; with `sae_id`, `name` is a release of SAELens. `layer` and `site` say what a foreign
    autoencoder encodes, where its folder does not; its inputs are taken as they are, without a scale. Raises ModelError
    for a folder that cannot be read, DependencyError without the jobs' packages.
    """
    with jobs_packages("lfp.load_sae"):
        from lfp.ml.sae import formats
    if is_address(name):
        name = fetch_copy(str(name), kind=ModelError)
    if sae_id is None:
        stored, source = formats.open_sae(formats.locate_sae(str(name), revision)), str(name)
    else:
        located = formats.locate_release(str(name), sae_id, revision)
        stored, source = formats.open_sae(located.folder, located.overrides), f"{name}/{sae_id}"
    if stored.own is not None:
        return formats.load_sae(stored.path.parent)
    place = formats.find_place(stored.reads) if stored.reads is not None else None
    number = next((value for value in (layer, place.layer if place else None, stored.layer) if value is not None), None)
    if number is None:
        raise ModelError(f"{stored.path}: does not say which layer it is of; pass layer=")
    return formats.adopt_sae(
        stored,
        layer=number,
        site=site or (place.site if place else "mlp_out"),
        model="tuned",
        scale=1.0,
        d_in=stored.d_in,
        source=source,
    )


class Bundle(Tables, AbstractContextManager["Bundle"]):
    """One run, open for reading.

    Methods return a pandas.DataFrame, or a pyarrow.Table with `arrow=True`. `sort` is one of the names that an error
    lists where it is given another. A bundle is a context manager; threads may share one.
    """

    path: Path
    """The folder; of a bundle at an address, that of the cache which holds what was fetched."""
    manifest: Manifest
    """What was run: title, config, seed, models, tables, artifacts, and the cost of each stage."""

    def __init__(self, store: Store) -> None:
        self._store, self.path, self.manifest = store, store.path, store.manifest

    def features(
        self,
        *,
        sort: str = "contribution",
        descending: bool = True,
        limit: int | None = None,
        offset: int = 0,
        columns: Sequence[str] | None = None,
        arrow: bool = False,
        **where: Any,
    ) -> Frame:
        """Return features with their weights, labels and drift, one row per feature.

        `where` are the fields of `lfp.bundle.queries.features.FeatureFilter`, such as `layers=(2,)`, `search="film"`,
        `related="yes"` or `drift=("born",)`.
        """
        wanted = _filter(queries.features.FeatureFilter, where)
        names = tuple(queries.features.FEATURE_COLUMNS) if columns is None else tuple(columns)
        order = Order(sort, descending)
        found = queries.features.features(self._store, wanted, order=order, columns=names, limit=limit, offset=offset)
        return self._answer(found, arrow)

    def feature(self, feature_id: int) -> Feature:
        """Return one feature. Raises NotInBundleError where the bundle has no such number."""
        return Feature(self._store, int(feature_id))

    def words(
        self, *, sort: str = "n", descending: bool = True, limit: int | None = None, arrow: bool = False
    ) -> Frame:
        """Return the vocabulary: each word's true feedback, what tuning pays for it, and the probe's estimate.

        `estimate` is `predicted` on the lexicon's scale.
        """
        return self._answer(queries.words.words(self._store, order=Order(sort, descending), limit=limit), arrow)

    def texts(
        self,
        *,
        sort: str = "id",
        descending: bool = False,
        limit: int | None = None,
        offset: int = 0,
        arrow: bool = False,
        **where: Any,
    ) -> Frame:
        """Return the texts that are kept for browsing, with their feedback, estimate and implicit reward.

        `where` are the fields of `lfp.bundle.queries.texts.TextFilter`, such as `words="good film"` or
        `split="held_out"`.
        """
        wanted = _filter(queries.texts.TextFilter, where)
        order = Order(sort, descending)
        return self._answer(queries.texts.texts(self._store, wanted, order=order, limit=limit, offset=offset), arrow)

    def tokens(self, text_id: int, *, arrow: bool = False) -> Frame:
        """Return one text token by token: feedback, implicit reward in nats, and the probe's estimate.

        Raises NotInBundleError where the bundle has no such text.
        """
        text = queries.texts.text(self._store, int(text_id))
        ends = [*text.token_starts[1:], len(text.text)]
        n = len(text.token_starts)
        columns = {
            "position": pa.array(range(n), pa.int32()),
            "token": [text.text[start:end] for start, end in zip(text.token_starts, ends, strict=True)],
            "feedback": pa.array(text.token_feedback or [None] * n, pa.float64()),
            "implicit_reward": pa.array(text.token_implicit_reward or [None] * n, pa.float64()),
            "predicted": pa.array(text.token_predicted or [None] * n, pa.float64()),
        }
        return self._answer(pa.table(columns), arrow)

    def pairs(
        self,
        *,
        sort: str = "number",
        descending: bool = False,
        limit: int | None = None,
        offset: int = 0,
        arrow: bool = False,
        **where: Any,
    ) -> Frame:
        """Return preference pairs with their margins, chosen minus rejected; empty where the feedback is no pairs.

        `where` are the fields of `lfp.bundle.queries.texts.PairFilter`, such as `verdict="wrong"`.
        """
        wanted = _filter(queries.texts.PairFilter, where)
        order = Order(sort, descending)
        return self._answer(queries.texts.pairs(self._store, wanted, order=order, limit=limit, offset=offset), arrow)

    def results(self, row: str | None = None, *, arrow: bool = False) -> Frame:
        """Return the figures of the report, each with its interval and its null; `row` keeps one row of the report."""
        found = self._store.query("SELECT * FROM results WHERE $row IS NULL OR report_row = $row", {"row": row})
        if row is not None and not found.num_rows:
            names = [name["report_row"] for name in self._store.rows("SELECT DISTINCT report_row FROM results")]
            raise NotInBundleError(f"results: no row {row!r} of the report here{_nearest(row, sorted(names))}")
        return self._answer(found, arrow)

    def report(self, *, html: str | Path | None = None, figures: str | Path | None = None) -> Report:
        """Return the whole report as rows, as `lfp.report` does; write it as a page and as SVG where named."""
        report: Report = verb("report")(self._store.source, html=html, figures=figures)
        return report

    def ledger(self, text_id: int, *, raw: bool = False, limit: int | None = None, arrow: bool = False) -> Frame:
        """Split a text's estimate over features: the column `contribution` sums to the stated prediction.

        Features come first, the largest contribution first, those beyond `limit` summed in one row; then the
        intercept. `raw` splits the raw probe's estimate instead, with the autoencoders' bias and the part that they do
        not reconstruct. `attrs` (Arrow: the schema's metadata) holds the check: predicted, total, and error, the
        distance of the two.

        Raises NotInBundleError where the text is not there, its activations were not kept, or no probe was fitted.
        """
        split = (queries.ledgers.raw_ledger if raw else queries.ledgers.ledger)(self._store, int(text_id), limit=limit)
        if split is None:
            queries.texts.text(self._store, int(text_id))  # raises where there is no such text
            if queries.common.headline(self._store) is None:
                raise NotInBundleError(f"{self.path}: no probe was fitted here, so no estimate can be split")
            lacks = "raw estimate or its activations were" if raw else "activations were"
            raise NotInBundleError(
                f"text {text_id}: its {lacks} not kept, so it cannot be split; choose one of texts(is_sampled=True)"
            )
        rows: list[dict[str, Any]] = [{"part": "feature", **asdict(part)} for part in split.shown]
        if split.n_features > len(split.shown) or (isinstance(split, queries.ledgers.RawLedger) and not split.shown):
            rows.append({"part": "other features", "contribution": split.rest})
        if isinstance(split, queries.ledgers.RawLedger):
            rows.append({"part": "bias of the autoencoders", "contribution": split.bias})
            rows.append({"part": "not reconstructed", "contribution": split.miss})
        rows.append({"part": "intercept", "contribution": split.intercept})
        check = {"predicted": split.predicted, "total": split.total, "error": split.error}
        return self._answer(pa.Table.from_pylist(rows, schema=_LEDGER), arrow, **check)

    def module_credits(self, text_id: int | None = None, *, word: str | None = None, arrow: bool = False) -> Frame:
        """Return which modules carry the implicit reward: of the run, of one text, or of one word.

        Of the run: shares, nats per token and shares of differences, with intervals and nulls. Of a text: credits in
        nats by path; `attrs` (Arrow: the schema's metadata) holds the reward that each path sums to, and the error. Of
        a word: means over contexts. Raises NotInBundleError where the bundle does not split it.
        """
        if text_id is not None and word is not None:
            raise ConfigError("module_credits takes a text_id or a word, not both")
        if text_id is not None:
            found = queries.credits.text_reward(self._store, int(text_id))
            if found is None:
                queries.texts.text(self._store, int(text_id))  # raises where there is no such text
                raise NotInBundleError(f"text {text_id}: its implicit reward was not split; raise credits.n_texts")
            table = queries.credits.text_credits(self._store, int(text_id))
            return self._answer(table, arrow, reward=found[0], error=found[1])
        if word is None:
            return self._answer(queries.credits.module_shares(self._store), arrow)
        table = queries.credits.word_credits(self._store, word)
        if not table.num_rows:
            raise NotInBundleError(f"word {word!r}: not in the texts that were split by token; raise credits.by_token")
        return self._answer(table, arrow)

    def encode(self, text: str, *, model: Literal["tuned", "base"] = "tuned", arrow: bool = False) -> Frame:
        """Run a text through the bundle's models; return the active features of each token.

        Columns: position, token, feature_id, activation. The first call loads the models. Raises DependencyError
        without the jobs' packages, BundleError where the bundle holds no models, DataError for a text without a token.
        """
        with jobs_packages("encode"):
            reading = self._models.read(text, model)
        tokens, starts = reading.text.text, reading.text.token_starts
        ends = [*starts[1:], len(tokens)]
        active = reading.active
        columns = {
            "position": pa.array(active.positions, pa.int32()),
            "token": [tokens[starts[at] : ends[at]] for at in active.positions.tolist()],
            "feature_id": pa.array(active.features, pa.int32()),
            "activation": pa.array(active.values, pa.float64()),
        }
        return self._answer(pa.table(columns), arrow)

    def table(self, name: str, *, arrow: bool = False) -> Frame:
        """Return a whole table of the bundle by the name in data/README.md."""
        if name not in BY_NAME:
            raise ConfigError(f"table {name!r}: not in a bundle{_nearest(name, [table.name for table in TABLES])}")
        self._store.fetch([file] if (file := f"{name}.parquet") in self.manifest.files else [])
        return self._answer(read_table(self.path, name), arrow)

    def sql(self, query: str, params: Parameters = (), *, arrow: bool = False) -> Frame:
        """Return the rows of one SELECT over the tables of the bundle, with `params` bound to `$name` or `?`.

        Raises ConfigError with DuckDB's own words where the query is wrong.
        """
        try:
            return self._answer(self._store.query(query, params), arrow)
        except duckdb.Error as error:
            raise ConfigError(f"sql: {str(error).splitlines()[0]}") from error
        except BundleError as error:
            cause = error.__cause__
            if isinstance(cause, (duckdb.IOException, duckdb.OutOfMemoryException)):
                raise
            raise ConfigError(f"sql: {str(cause).splitlines()[0]}") from cause

    def validate(self) -> list[str]:
        """Read everything and return the faults, one line each; an empty list where the bundle is valid."""
        return validate(self._store.source)

    def close(self) -> None:
        """Close the files."""
        self._store.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        rows = {name: info.rows for name, info in self.manifest.tables.items()}
        layers = ", ".join(map(str, queries.features.feature_layers(self._store)))
        sites = queries.features.feature_sites(self._store)
        if set(sites) - {"mlp_out"}:
            layers += f"; {', '.join(SITE_NAMES[site] for site in sites)}"
        counts = (
            f"{rows['features']:,} features (layers {layers}), {rows['texts']:,} texts, {rows['vocabulary']:,} words"
        )
        return (
            f"<Bundle {str(self._store.source)!r}: {self.manifest.title}; {counts}; tables {self.manifest.tables_id}>"
        )

    @cached_property
    def _models(self) -> Live:
        from lfp.ml.interventions.bundle_models import Live

        self._store.fetch()
        return Live.load(self.path, self.manifest)


_TEXT, _REAL = pa.string(), pa.float64()
_LEDGER = pa.schema([
    ("part", _TEXT), ("feature_id", pa.int32()), ("layer", pa.int32()), ("site", _TEXT), ("description", _TEXT),
    ("weight", _REAL), ("pooled", _REAL), ("contribution", _REAL),
])  # fmt: skip


def _filter(kind: type[T], where: Mapping[str, Any]) -> T:
    """Build a filter from keyword arguments. Raises ConfigError, naming the nearest field, for one it has not."""
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for name in where:
        if name not in known:
            raise ConfigError(f"{name}: nothing to filter by{_nearest(name, known)}")
    return kind(**where)


def _nearest(name: str, known: Sequence[str]) -> str:
    found = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {found[0]!r}?" if found else f"; choose one of {', '.join(known)}"
