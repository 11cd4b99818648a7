"""Playground: a typed text, scored by the bundle's models and continued with features scaled; the page with torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import streamlit as st

from app.components.html import panels
from app.components.text import playground, tokens
from app.components.text.reading import target_name
from app.session import bundles, cache, permalinks
from app.session.cache import ask
from app.widgets import frame
from lfp.bundle import queries
from lfp.bundle.manifest import Manifest, has_models
from lfp.bundle.queries.common import Order
from lfp.bundle.store.connection import Store
from lfp.config import drop_retired, parse_config
from lfp.errors import DataError, LfpError
from lfp.report.figures.frame import CONFIG, contributions
from lfp.texts.rewards import reward_of

if TYPE_CHECKING:
    from lfp.ml.interventions.bundle_models import Live, Reading

LONGEST = 2000
"""Characters of a text."""
SLIDERS, MOST_TOKENS, TOKENS = 6, 60, 16


def why_not(manifest: Manifest) -> str | None:
    """Return why no text can be tried with this bundle, or None."""
    if not has_models(manifest):
        says = "This bundle carries no models, so no text can be tried."
        fix = " To make one that does: python -m precompute run CONFIG.toml --out DIR --set artifacts=true."
        return says if bundles.is_public() else says + fix
    largest = max(model.parameters for model in manifest.models.values())
    if bundles.is_public() and largest > playground.LARGEST_PUBLIC:
        limit = f"{playground.LARGEST_PUBLIC / 1e6:.0f} million parameters"
        return f"This bundle’s models are too large to run here, above {limit}. Run the explorer at home to try a text."
    return None


def load_models(store: Store) -> Live | None:
    """Load the bundle's models; if that is not possible, say what is missing and return None."""
    reason = why_not(store.manifest)
    if reason is None:
        try:
            return cache.live(store)
        except ImportError:
            reason = (
                "Reading a text needs torch, which is not installed here. Get the project and run make test once, or "
                "pip install -e '.[jobs]' in its folder; then start the explorer again."
            )
        except LfpError as error:
            reason = f"The models of this bundle cannot be loaded: {bundles.error_text(error)}."
    st.html(panels.note(reason))
    return None


def show_input(store: Store) -> tuple[str, Literal["base", "tuned"]]:
    """Draw the text input and the choice of the model that reads it; return both."""
    hint = "A sentence or two, such as a film review. Ctrl+Enter reads it."
    text = st.text_area("Text", key="typed", bind="query-params", placeholder=hint, max_chars=LONGEST, height=110)
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="medium")
    with row:
        is_base = frame.choose_one("Read by", ["tuned", "base"], key="reader") == "base"
    wanted = queries.texts.TextFilter(is_sampled=True)
    found = ask(queries.texts.texts, store, wanted, order=Order("feedback"), limit=1)["text"].to_pylist()
    if found:

        def take_example() -> None:
            st.session_state.typed = found[0][:LONGEST]

        row.button("Example text", on_click=take_example, icon=":material/notes:")
    return text, "base" if is_base else "tuned"


def show_reading(store: Store, live: Live, reading: Reading) -> list[int]:
    """Draw scores, tokens and ledger; return the features that made the estimate, largest contribution first."""
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
    parts = tokens.pieces(reading.text.text, reading.text.token_starts)
    st.html(tokens.sheet_legend(rows) + tokens.sheet(parts, rows, numbers=numbers))
    st.subheader("What made the estimate")
    if probe is None or ledger is None:
        st.html(panels.note("This bundle has no probe, so there is no estimate to split."))
        return []
    features: list[int] = ledger.features.tolist()
    shown = features[: playground.SHOWN]
    names = ask(queries.feature.named_features, store, shown)
    figure = contributions(
        shown,
        [names.get(feature_id) for feature_id in shown],
        ledger.contributions[: playground.SHOWN].tolist(),
        ink=permalinks.text_colour(),
    )
    st.plotly_chart(figure, config=CONFIG, key="tried_ledger")
    links = " · ".join(panels.anchor(permalinks.feature_href(feature), f"#{feature}") for feature in shown)
    st.html(playground.check(reading, probe, ledger) + panels.text("Open a feature: ") + links)
    return features


def show_sliders(store: Store, live: Live, features: Sequence[int]) -> tuple[dict[int, float] | None, dict[str, Any]]:
    """Draw the form: a slider per feature, and the sampling settings.

    Return the scales that are not 1, or None if the form was not sent, and the settings. Scales go into the link only
    when the form is sent, as its widgets change all at once.
    """
    also: int | None = st.number_input(
        "Add a feature", min_value=0, max_value=live.dictionary.n_features - 1, value=None, key="also",
        bind="query-params", placeholder="any number", width=180,
    )  # fmt: skip
    linked = playground.read_scales(st.query_params.get("scales", ""), live.dictionary.n_features)
    ids = list(dict.fromkeys([*([] if also is None else [also]), *linked, *features[:SLIDERS]]))
    names = ask(queries.feature.named_features, store, ids)

    def keep_scales() -> None:
        scales = {feature_id: st.session_state[f"scale_{feature_id}"] for feature_id in ids}
        permalinks.set_param("scales", playground.written_scales(scales))

    with st.form("scales", border=True):
        columns = st.columns(2, gap="large")
        scales = {}
        for at, feature_id in enumerate(ids):
            key = f"scale_{feature_id}"
            st.session_state.setdefault(key, linked.get(feature_id, 1.0))
            scales[feature_id] = columns[at % 2].slider(
                playground.slider_name(feature_id, names.get(feature_id)), min_value=0.0,
                max_value=playground.LARGEST_SCALE, step=playground.SCALE_STEP, key=key, format="%.2f ×",
            )  # fmt: skip
        row = st.container(horizontal=True, vertical_alignment="bottom", gap="medium")
        most = min(MOST_TOKENS, live.kept_tokens(1))
        settings = {
            "n_tokens": int(
                row.number_input("Tokens", 1, most, min(TOKENS, most), key="try_tokens", width=120, bind="query-params")
            ),
            "temperature": float(
                row.number_input("Temperature", 0.1, 2.0, 1.0, 0.1, key="temperature", width=130, bind="query-params")
            ),
            "seed": int(
                row.number_input("Seed", min_value=0, max_value=10**6, key="seed", width=120, bind="query-params")
            ),
        }
        sent = row.form_submit_button("Generate", type="primary", icon=":material/edit_note:", on_click=keep_scales)
    changed = {feature_id: scale for feature_id, scale in scales.items() if scale != 1.0}
    return (changed if sent else None), settings


def show_continuations(
    store: Store, live: Live, text: str, role: Literal["base", "tuned"], features: Sequence[int]
) -> None:
    """Draw the form, and once it is sent the completions with and without the features scaled."""
    st.subheader("Continue the text")
    scales, settings = show_sliders(store, live, features)
    if scales is None:
        return
    with st.spinner("Generating"):
        unchanged, changed = live.write(text, role, scales=scales, **settings)
    rewards = rewards_of(store.manifest.config, [unchanged.text, changed.text])
    if live.is_cut(text, settings["n_tokens"]):
        room = live.kept_tokens(settings["n_tokens"])
        st.html(panels.note(f"Only the last {room} tokens of the text were read, to leave room for the completion."))
    st.html(
        playground.completions(text, unchanged.text, changed.text, rewards)
        + panels.note(playground.difference(rewards, bool(scales)))
    )


def rewards_of(config: Mapping[str, Any], texts: list[str]) -> Sequence[float] | None:
    """Return the rewards of completions; None if the run's reward is not built in, or its lexicon not installed."""
    if not playground.has_reward(config):
        return None
    try:
        return reward_of(parse_config(drop_retired(config)).feedback, beside=None)(texts)
    except ImportError:
        return None


def show() -> None:
    store = cache.current()
    lede = "Type a text to see how this bundle’s models score it, and how they continue it with features scaled."
    st.html(panels.heading(store.manifest.title, "Playground", lede))
    live = load_models(store)
    if live is None:
        return
    text, role = show_input(store)
    if not text.strip():
        st.html(panels.note("Type a sentence and press Ctrl+Enter."))
        return
    try:
        features = show_reading(store, live, live.read(text, role))
        show_continuations(store, live, text, role, features)
    except DataError as error:
        st.html(panels.note(f"{str(error)[:1].upper()}{str(error)[1:]}."))


show()
