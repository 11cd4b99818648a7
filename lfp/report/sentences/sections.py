"""What each section of the report says, in one or more plain sentences."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lfp.report.credits import credits_sentence, trajectory_sentence
from lfp.report.figures import lines
from lfp.report.sentences.ablations import ablation_sentence
from lfp.report.sentences.common import ABSENT, Rows
from lfp.report.sentences.features import (
    drift_sentence,
    feature_credits_sentence,
    frequencies_sentence,
    interventions_sentence,
    label_scores_sentence,
    labellers_sentence,
    labels_sentence,
)
from lfp.report.sentences.models import (
    autoencoders_sentence,
    base_model_sentence,
    cost_sentence,
    differences_sentence,
    divergence_sentence,
    forecast_sentence,
    implicit_reward_sentence,
    latent_scaling_sentence,
    pretrained_sentence,
    reward_sentence,
    tuning_sentence,
)
from lfp.report.sentences.words import (
    disagreements_sentence,
    errors_sentence,
    pairs_sentence,
    pca_sentence,
    signs_sentence,
    taus_sentence,
    triples_sentence,
    twins_sentence,
    words_sentence,
)


def sentence(section: str, rows: Rows) -> str:
    """Return what a section of the report says."""
    if not rows:
        return ABSENT
    return _SENTENCES[section](rows) if section in _SENTENCES else "Figures of the run."


_SENTENCES: Mapping[str, Callable[[Rows], str]] = {
    "reward": reward_sentence,
    "implicit_reward": implicit_reward_sentence,
    "module_credits": credits_sentence,
    "kendall_tau": taus_sentence,
    "sign_accuracy": signs_sentence,
    "preference_accuracy": pairs_sentence,
    "token_sentiment": words_sentence,
    "error_by_frequency": errors_sentence,
    "disagreements": disagreements_sentence,
    "twins": twins_sentence,
    "tuning": tuning_sentence,
    "trajectory": trajectory_sentence,
    "base_model": base_model_sentence,
    "divergence_by_layer": divergence_sentence,
    "drift": drift_sentence,
    "feature_credits": feature_credits_sentence,
    "interventions": interventions_sentence,
    "label_scores": label_scores_sentence,
    "label_agreement": labels_sentence,
    "labellers": labellers_sentence,
    "activation_frequency": lambda rows: frequencies_sentence(lines.frequencies(rows, "per_token")),
    "forecast": forecast_sentence,
    "ablation": ablation_sentence,
    "pca_explained": pca_sentence,
    "sae_check": pretrained_sentence,
    "sae_quality": autoencoders_sentence,
    "latent_scaling": latent_scaling_sentence,
    "differences": differences_sentence,
    "sae_sweep": autoencoders_sentence,
    "triples": triples_sentence,
    "cost": cost_sentence,
}
