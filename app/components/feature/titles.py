"""Titles of the panels of a feature's page: each says what the panel shows of this feature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.components.feature import profile
from lfp.bundle.queries.feature import Feature, FeatureCredit, FeatureDrift, Neighbour, TextParts
from lfp.report.formatting import count, percent, plain, with_interval, with_power
from lfp.util.sanitize import token_text


def examples(feature: Feature) -> str:
    """Say how often the feature is active."""
    return f"Active on {percent(feature.density)} of the tuned model’s tokens"


def credit(found: FeatureCredit | None, *, n_features: int) -> str:
    """Say what the feature carries of the implicit reward."""
    if found is None:
        return "Not measured"
    carried = with_power(found.credit, found.ci_low, found.ci_high)
    is_zero = found.ci_low <= 0.0 <= found.ci_high
    end = "not beyond zero" if is_zero else f"rank {count(found.rank)} of {count(n_features)}"
    return f"Carries {carried} nats per token of the implicit reward, {end}"


def contribution(feature: Feature, *, n_features: int) -> str:
    """Say how large the feature's weight is."""
    if feature.weight is None:
        return "The probe does not read it"
    weight = with_interval(feature.weight, feature.ci_low, feature.ci_high, is_signed=True)
    return f"Weight {weight}, rank {count(feature.rank)} of {count(n_features)} by contribution"


def drift(found: FeatureDrift | None) -> str:
    """Say how tuning changed when the feature fires."""
    return "Not measured" if found is None else profile.STATUSES.get(found.status, found.status).rstrip(".")


def ablations(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say what removing the feature does: by itself where that was done, else in the first group."""
    return profile.verdict(rows[0])[1].rstrip(".") if rows else "Not ablated in this run"


def activity(feature: Feature) -> str:
    """Say how often the feature is active in either model."""
    tuned, base = percent(feature.density), percent(feature.base_density)
    return f"Active on {tuned} of tokens in the tuned model, {base} in the base model"


def latent_scaling(feature: Feature) -> str:
    """Say whether the feature's direction is in both models."""
    if feature.is_tuned_only:
        return "Its direction explains the tuned model’s activations and not the base model’s"
    return "Its direction explains activations of the base model too"


def tokens(feature: Feature) -> str:
    """Say which token's logit the feature raises most, and which it lowers most."""
    said = [
        f"{verb} {_quoted(items[0])}"
        for verb, items in (("raises", feature.pos_logits), ("lowers", feature.neg_logits))
        if items
    ]
    return f"Its direction {' and '.join(said)} most" if said else "Its direction raises no token"


def fires_on(feature: Feature) -> str:
    """Say on which token most of the feature's activation is."""
    if not feature.top_tokens:
        return "Fires on no token"
    first = feature.top_tokens[0]
    return f"{_quoted(first)} has {percent(float(first['value']))} of its activation"


def texts(parts: TextParts | None) -> str:
    """Say how many texts' estimates the feature moves."""
    if parts is None or not parts.n_active:
        return "Moves no estimate"
    verb = "Raises" if (parts.mean or 0) >= 0 else "Lowers"
    return f"{verb} the estimate of {count(parts.n_active)} of {count(parts.n_texts)} sampled texts"


def neighbours(found: Sequence[Neighbour]) -> str:
    """Say which feature writes in the most similar direction."""
    near = next((each for each in found if each.kind == "decoder_cosine"), None)
    if near is None:
        return "No similar direction is stored"
    return f"Nearest direction: feature {near.neighbour_id}, cosine {plain(near.value)}"


def _quoted(item: Mapping[str, Any]) -> str:
    token = token_text(str(item["token"]))
    return f"“{token.strip('␣') or token}”"
