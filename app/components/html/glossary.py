"""The glossary: each word that the explorer uses for one idea, and the same word everywhere."""

from __future__ import annotations

from collections.abc import Mapping

from lfp.util.sanitize import escaped

TERMS: Mapping[str, str] = {
    "base, tuned": "The model before and after it was tuned on feedback.",
    "feedback": "What tuning rewarded: a reward of texts, or pairs with a chosen and a rejected response.",
    "reward": "The number that feedback gives a word or a text, such as the lexicon’s value.",
    "implicit reward": "Log-probability under the tuned model less that under the base model, in nats, summed over a "
    "text’s tokens: what tuning made likelier.",
    "ledger": "A split of the implicit reward, or of a probe’s estimate, into parts that sum to it.",
    "credit": "A part of the implicit reward: what a module, or tuning’s change of a feature, carries of it, in nats.",
    "path": "Full: through every later layer and position. Same position: for the next token alone, with keys and "
    "values held fixed.",
    "layer, site": "Where in the model activations are read: a layer, and its MLP’s output, attention’s output or the "
    "residual stream.",
    "module": "An MLP, attention block, embedding or other part of the model with weights of its own.",
    "dictionary": "A sparse autoencoder (SAE): it writes activations as a sum of few features, a bias and a residual.",
    "feature": "A direction of a dictionary with its activation on every token.",
    "activation": "How strongly a feature is active at a token.",
    "example": "A token of a text on which a feature is active, or, for contrast, silent.",
    "label": "A description of a feature, by a rule, a language model or a person, scored on held-out texts.",
    "detection": "How well a label predicts which held-out texts the feature is active in; 0.5 is a guess.",
    "probe": "A linear model from features’ activations to the reward or the implicit reward.",
    "weight": "What a probe adds per unit of a feature’s activation.",
    "contribution": "A part of a probe’s estimate: weight times activation.",
    "intervention": "A feature taken out of what tuning changed, and what then happens to the implicit reward.",
    "ablation": "Features removed from the tuned model while it writes, and what then happens to the reward.",
    "control": "A similar feature, or group, that an intervention or ablation removes instead.",
    "null": "What a figure comes to where there is nothing to find, such as with shuffled rewards; also chance.",
    "interval": "95 %, by bootstrap over words, texts, pairs or features, in square brackets.",
    "false discovery rate": "The share of what is called found that would be chance, over many tests.",
    "twin": "A model tuned on the same feedback by another seed.",
    "drift": "How tuning changed when a feature is active, and what it contributes.",
    "latent scaling": "By what factor a feature’s direction explains a model’s activations: near 0, it is not there.",
    "verdict, audit": "A person’s judgement of a feature, and all of them together.",
    "bundle, run": "The files that hold all results of one run, and the run.",
}


def terms() -> str:
    """Return all words with what they mean."""
    rows = "".join(f"<div><dt>{escaped(term)}</dt><dd>{escaped(says)}</dd></div>" for term, says in TERMS.items())
    return f'<dl class="lfp-glossary">{rows}</dl>'
