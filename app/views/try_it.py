"""Playground: a typed text continued by base, tuned and steered models side by side, or scored; the page with torch."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import streamlit as st

from app.components.html import panels
from app.components.text import playground, samples, steering, tokens
from app.components.text.reading import target_name
from app.components.text.steering import Estimate, Request, Samples, Written
from app.session import bundles, cache, callbacks, models, names, permalinks
from app.session.cache import ask
from app.session.option_words import WORDS
from app.widgets import frame
from lfp.bundle import queries
from lfp.bundle.manifest import Manifest
from lfp.bundle.queries.common import Order
from lfp.bundle.store.connection import Store
from lfp.config import drop_retired, parse_config
from lfp.errors import DataError, LfpError
from lfp.report.figures.frame import CONFIG, contributions
from lfp.report.running_text import pieces
from lfp.texts.rewards import reward_of
from lfp.util.sanitize import path_name

if TYPE_CHECKING:
    from lfp.ml.interventions.bundle_models import Live, Prompt, Reading
    from lfp.ml.models.generation import Completion

LONGEST = 2000
"""Characters of a text."""
OFFERED, MOST_SAMPLES, MOST_TOKENS = 30, 20, 60
PAUSE = 0.15
"""Seconds between two pictures of what is being written."""
BIND: Literal["query-params"] = "query-params"
STORED = 3
"""Stored continuations that are shown where the models cannot write."""


def load_models(store: Store) -> Live | None:
    """Load the bundle's models; if that is not possible, say why and return None."""
    try:
        return cache.live(store)
    except (ImportError, LfpError) as error:
        st.html(panels.note(models.why_failed(error)))
        return None


def show_input(store: Store, scales: Mapping[str, float]) -> tuple[str, str, bool]:
    """Draw the text box and what is done with its text; return text, what to do, and whether it is a message."""
    hint = "A sentence or two for the models to continue, or to be scored. Ctrl+Enter takes it."
    text = st.text_area("Text", key="typed", bind="query-params", placeholder=hint, max_chars=LONGEST, height=90)
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="medium")
    with row:
        doing = frame.choose_one("What to do", WORDS["doing"], key="doing", names=WORDS["doing"])
        as_message = False
        if doing == "continue":
            kind = frame.choose_one("Read as", WORDS["written_as"], key="written_as", names=WORDS["written_as"])
            as_message = kind == "message"
    example = find_example(store, scales)
    if example:

        def take_example() -> None:
            st.session_state.typed = example

        row.button("Example text", on_click=callbacks.guard(take_example), icon=":material/notes:")
    return text, doing, as_message


def find_example(store: Store, scales: Mapping[str, float]) -> str:
    """Return a text to try: up to where a chosen feature is strongest, else a stored prompt or sampled text."""
    for part in scales:
        rows = [] if part in steering.PARTS else ask(queries.excerpts.feature_excerpts, store, int(part))
        for row in (row for row in rows if row["bucket"] == 0):
            if before := row["text"][: row["token_starts"][row["position"]]].strip():
                return str(before)[-LONGEST:]
    prompts = [sample.prompt for sample in ask(queries.run.samples, store, limit=1, by_change=True)]
    wanted = queries.texts.TextFilter(is_sampled=True)
    found = prompts or ask(queries.texts.texts, store, wanted, order=Order("feedback"), limit=1)["text"].to_pylist()
    return found[0][:LONGEST] if found else ""


def show_scores(store: Store, text: str) -> None:
    """Draw the scores of a text's tokens, by the model that is chosen."""
    is_base = frame.choose_one("Read by", ["tuned", "base"], key="reader") == "base"
    if not text.strip():
        st.html(panels.note("Type a sentence and press Ctrl+Enter."))
        return
    live = load_models(store)
    if live is not None:
        show_reading(store, live, live.read(text, "base" if is_base else "tuned"))


def show_reading(store: Store, live: Live, reading: Reading) -> None:
    """Draw scores, tokens and ledger."""
    stated = ask(queries.common.headline, store)
    probe = ledger = None
    if stated is not None:
        weights = ask(queries.feature.probe_weights, store)
        ids, values = (weights[name].to_pylist() for name in ("feature_id", "weight"))
        probe, ledger = playground.split_estimate(reading, stated, ids, values, live.dictionary.n_features)
    config = store.manifest.config
    if reading.text.truncated:
        st.html(panels.note(f"Cut to its first {live.context} tokens, the context of this run’s models."))
    st.html(playground.totals(reading, ledger, config))
    target = target_name(stated) if stated else ""
    rows = playground.score_rows(reading, probe, ask(queries.texts.score_limits, store), config, target=target)
    numbers = st.toggle("Show numbers", key="tried_values", bind="query-params")
    parts = pieces(reading.text.text, reading.text.token_starts)
    st.html(tokens.sheet_legend(rows) + tokens.sheet(parts, rows, numbers=numbers))
    st.subheader("What made the estimate")
    if probe is None or ledger is None:
        st.html(panels.note("This bundle has no probe, so there is no estimate to split."))
        return
    features: list[int] = ledger.features.tolist()
    shown = features[: playground.SHOWN]
    known = names.read_names(store, shown)
    figure = contributions(
        shown,
        [known.get(feature_id) for feature_id in shown],
        ledger.contributions[: playground.SHOWN].tolist(),
        ink=permalinks.text_colour(),
    )
    st.plotly_chart(figure, config=CONFIG, key="tried_ledger")
    links = " · ".join(panels.anchor(permalinks.feature_href(feature), f"#{feature}") for feature in shown)
    st.html(playground.check(reading, probe, ledger) + panels.text("Open a feature: ") + links)


def choose_scales(store: Store, scales: Mapping[str, float]) -> None:
    """Draw the choice of features and a slider for each; scales are in the address, and nowhere else."""
    n, reads_changes = store.manifest.tables["features"].rows, is_of_change(store.manifest)
    leaders = ask(queries.credits.leading_features, store, limit=OFFERED).features
    offered = [str(feature.feature_id) for feature in leaders] + (list(steering.PARTS) if reads_changes else [])
    ids = [int(part) for part in {*offered, *scales} if part not in steering.PARTS]
    known = names.read_names(store, ids)

    def keep(changed: Mapping[str, float]) -> None:
        permalinks.set_param("scales", steering.written_scales(changed))
        permalinks.set_param("also", "")

    def add() -> None:
        typed, st.session_state.add_feature = str(st.session_state.add_feature or ""), None
        added = steering.with_part(scales, typed, n_features=n, reads_changes=reads_changes)
        if added is None:
            st.session_state.not_added = f"There is no feature “{typed}”: numbers go from 0 to {n - 1}."
        else:
            keep(added)

    def move(part: str) -> None:
        keep({**scales, part: st.session_state[f"scale_{part}"]})

    def drop(part: str) -> None:
        keep({other: scale for other, scale in scales.items() if other != part})

    st.selectbox(
        "Steer a feature of " + ("what tuning changed" if reads_changes else "the tuned model"),
        [part for part in offered if part not in scales], index=None, key="add_feature", accept_new_options=True,
        format_func=lambda part: steering.part_name(str(part), known) if str(part) in offered else str(part),
        placeholder="Those that carry most, or type a number", on_change=callbacks.guard(add),
        disabled=len(scales) >= steering.MOST_SCALES,
    )  # fmt: skip
    if says := st.session_state.pop("not_added", ""):
        st.html(panels.note(says))
    for part, scale in scales.items():
        st.session_state[f"scale_{part}"] = scale
        row = st.container(horizontal=True, vertical_alignment="bottom", gap="small")
        row.slider(
            steering.slider_label(part, known), min_value=0.0, max_value=steering.LARGEST_SCALE,
            step=steering.SCALE_STEP, key=f"scale_{part}", format="%.2f ×",
            on_change=callbacks.guard(move), args=(part,),
        )  # fmt: skip
        row.button("Remove", key=f"drop_{part}", on_click=callbacks.guard(drop), args=(part,), icon=":material/close:")
    if scales:
        st.html(panels.note("0 takes a feature out, 1 leaves it as it is, 2 doubles it. " + of_what(reads_changes)))


def is_of_change(manifest: Manifest) -> bool:
    """Return whether the dictionary's features are of what tuning changed."""
    return bool(manifest.config.get("sae", {}).get("trained_on") == "change")


def of_what(reads_changes: bool) -> str:
    """Say what a scale acts on."""
    if reads_changes:
        return (
            "A scale acts on the feature’s part of what tuning changed; with every part at 0 the base’s weights write."
        )
    return "A scale acts on what the feature writes in the tuned model, whether tuning changed it or not."


def choose_sampling() -> dict[str, Any]:
    """Draw the sampling settings and return them."""
    row, bind = st.container(horizontal=True, vertical_alignment="bottom", gap="medium"), BIND
    n = row.number_input("Samples", 1, MOST_SAMPLES, MOST_SAMPLES, key="samples", width=120, bind=bind)
    n_tokens = row.number_input("Tokens", 1, MOST_TOKENS, 30, key="try_tokens", width=120, bind=bind)
    temperature = row.number_input("Temperature", 0.1, 2.0, 1.0, 0.1, key="temperature", width=130, bind=bind)
    seed = row.number_input("Seed", min_value=0, max_value=10**6, key="seed", width=120, bind=bind)
    return {"n": int(n), "n_tokens": int(n_tokens), "temperature": float(temperature), "seed": int(seed)}


def show_writing(store: Store, text: str, *, as_message: bool, scales: Mapping[str, float], blocked: bool) -> None:
    """Draw the settings, and what was written last; write when the button is pressed."""
    choose_scales(store, scales)
    request = Request(text, as_message, steering.written_scales(scales), **choose_sampling())
    row = st.container(horizontal=True, vertical_alignment="center", gap="medium")
    pressed = row.button("Write", type="primary", icon=":material/edit_note:", disabled=blocked)
    stop, cards = st.empty(), st.empty()
    kept: Written | None = st.session_state.get("written")
    if kept is not None and kept.bundle_id != store.manifest.bundle_id:
        kept = None
    if pressed and not text.strip():
        st.html(panels.note("Type a sentence for the models to continue."))
    elif pressed:
        live = load_models(store)
        if live is None:
            return
        new = Written(store.manifest.bundle_id, request)
        if kept is not None and kept.is_whole and kept.request.unsteered == request.unsteered:
            new.columns = {name: kept.columns[name] for name in ("base", "tuned")}
        st.session_state.written = new
        write_columns(store, live, new, stop, cards)
        kept = new
    if kept is not None:
        show_written(store, kept, request, cards)


def write_columns(store: Store, live: Live, new: Written, stop: Any, cards: Any) -> None:
    """Write every column that is missing and score it, with the time left and a button to stop."""
    missing = [column for column in new.request.columns if column not in new.columns]
    session = st.session_state.setdefault("visitor", uuid.uuid4().hex)

    def wait(before: int) -> None:
        stop.html(panels.note(f"Waiting: {before} {'reader is' if before == 1 else 'readers are'} before you."))

    with cache.turns().take(session, new.request.n * len(missing), is_public=bundles.is_public(), on_wait=wait):
        prompt = live.prompt(new.request.text, as_message=new.request.as_message, n_tokens=new.request.n_tokens)
        new.prompt, new.is_chat, new.is_cut = prompt.text, prompt.is_chat, prompt.is_cut
        row = stop.container(horizontal=True, vertical_alignment="center", gap="medium")
        bar = row.progress(0.0, "Reading the prompt")
        row.button("Stop", icon=":material/stop_circle:", key="stop_writing")
        since, whole = time.monotonic(), len(missing) * new.request.n_tokens

        def show_step(column: str, at: int) -> None:
            done = missing.index(column) * new.request.n_tokens + at
            left = (time.monotonic() - since) / done * (whole - done) if done > 2 else None
            bar.progress(done / whole, steering.progress(column, at, new.request.n_tokens, seconds_left=left))
            cards.html(steering.cards(new))

        drawn = {column: stream_column(live, prompt, column, new, show_step) for column in missing}
        bar.progress(1.0, "Scoring the samples")
        score(store, live, new, drawn)
    new.is_whole = True
    stop.empty()


def stream_column(
    live: Live, prompt: Prompt, column: str, new: Written, show_step: Callable[[str, int], None]
) -> list[Completion]:
    """Write one column, and show it a few times a second."""
    from lfp.ml.interventions.bundle_models import Sampling, Steering  # after the models, and so torch, are loaded

    request = new.request
    scaled = {int(part): scale for part, scale in request.factors.items() if part not in steering.PARTS}
    parts = {part: scale for part, scale in request.factors.items() if part in steering.PARTS}
    sampling = Sampling(request.n, request.n_tokens, request.temperature, request.seed)
    rows: list[Completion] = []
    shown = 0.0
    for at, rows in enumerate(live.stream(prompt, column, Steering(scaled, **parts), sampling), start=1):  # type: ignore[arg-type]
        new.columns[column] = Samples(tuple(row.text for row in rows), at)
        if time.monotonic() - shown > PAUSE or at == request.n_tokens:
            show_step(column, at)
            shown = time.monotonic()
    return rows


def score(store: Store, live: Live, new: Written, drawn: Mapping[str, list[Completion]]) -> None:
    """Score the columns just written, and compare each with the one before by paired differences."""
    for column, rows in drawn.items():
        values = rewards_of(store.manifest.config, [row.text for row in rows])
        new.measure = "implicit reward" if values is None else "reward"
        values = live.implicit_rewards(rows).tolist() if values is None else values
        found = new.columns[column]
        new.columns[column] = Samples(found.texts, found.n_tokens, tuple(values), estimate(values))
    for column, beside in steering.BESIDE.items():
        if column in new.columns and beside in new.columns:
            pairs = zip(new.columns[column].values, new.columns[beside].values, strict=True)
            new.differences[column] = estimate([value - before for value, before in pairs])


def estimate(values: Sequence[float]) -> Estimate:
    """Return the mean of values and its 95 % interval by bootstrap."""
    from lfp.evaluation.statistics.resampling import mean_interval  # needs scipy, as the models do

    sample = np.asarray(values, np.float64)
    if len(sample) < 2:
        return Estimate(float(sample.mean()), None, None)
    return Estimate(float(sample.mean()), *mean_interval(sample, n=2000, rng=np.random.default_rng(0)))


def rewards_of(config: Mapping[str, Any], texts: list[str]) -> Sequence[float] | None:
    """Return the rewards of samples; None where the tuning had none, it is not built in, or its lexicon is missing."""
    if config.get("tune", {}).get("method") == "dpo" or not playground.has_reward(config):
        return None
    try:
        return reward_of(parse_config(drop_retired(config)).feedback, beside=None)(texts)
    except ImportError:
        return None


def show_written(store: Store, written: Written, request: Request, cards: Any) -> None:
    """Draw what was written, what it shows, and every sample."""
    cards.html(steering.cards(written) if written.columns else "")
    factors = written.request.factors
    known = names.read_names(store, [int(part) for part in factors if part not in steering.PARTS])
    if not written.is_whole:
        st.html(panels.note(steering.interrupted(written, written.request.columns)))
    for says in steering.finding(written):
        st.html(panels.note(says))
    if factors:
        st.html(steering.what_is_steered(factors, known, where=permalinks.feature_href))
    elif written.is_whole and not request.factors:
        st.html(panels.note("Choose a feature above for a third column: the tuned model with that feature scaled."))
    if written.request != request:
        st.html(panels.note("The settings have changed since; press Write again."))
    model = path_name(store.manifest.models["base"].name).rpartition("/")[2].removesuffix(".gguf")
    st.html(panels.note(steering.how_it_was_read(written, model)))
    if written.columns:
        with st.expander(f"All {written.request.n} samples, and the prompt as the models read it"):
            st.html(steering.all_samples(written))


def show_stored(store: Store) -> None:
    """Draw continuations of both models that the bundle holds."""
    found = ask(queries.run.samples, store, limit=STORED, by_change=True)
    if found:
        st.subheader("What both models wrote during the run")
        st.html("".join(samples.continuations(sample) for sample in found))


def show() -> None:
    store = cache.current()
    lede = "Type a text: both models continue it, and the tuned one with features scaled or taken out."
    st.html(panels.heading(store.manifest.title, "Playground", lede))
    n = store.manifest.tables["features"].rows
    also, linked = st.query_params.get("also", ""), steering.read_scales(st.query_params.get("scales", ""))
    if also.isascii() and also.isdigit():
        linked = {str(int(also)): 1.0} | linked
    of_change = is_of_change(store.manifest)
    scales = {part: scale for part, scale in linked.items() if (of_change if part in steering.PARTS else int(part) < n)}
    text, doing, as_message = show_input(store, scales)
    reason = models.why_not(store.manifest)
    if reason is not None:
        st.html(panels.note(reason))
    try:
        if doing == "continue":
            show_writing(store, text, as_message=as_message, scales=scales, blocked=reason is not None)
        elif reason is None:
            show_scores(store, text)
    except DataError as error:
        st.html(panels.note(f"{str(error)[:1].upper()}{str(error)[1:]}."))
    if reason is not None:
        show_stored(store)


show()
