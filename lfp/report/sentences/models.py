"""What results say of the models: reward, tuning, forecast, layers, dictionaries, and what a run cost."""

from __future__ import annotations

from collections.abc import Sequence

from lfp.evaluation.results import FATES, ResultRow
from lfp.report.figures import lines
from lfp.report.formatting import count, estimate, number, percent, pick, plain
from lfp.report.sentences.common import Rows, against_chance, size_of
from lfp.util.types import SITE_NAMES


def reward_sentence(rows: Rows) -> str:
    """Say what tuning did to the mean reward of completions (section `reward`)."""
    base, tuned, change = (
        pick(rows, metric="reward", model=model, group=None) for model in ("base", "tuned", "difference")
    )
    kl = pick(rows, metric="kl_per_token")
    strayed = f" KL divergence from the base model: {number(kl.value)} nats per token." if kl else ""
    if base is None or tuned is None or change is None:
        return f"Mean reward of completions.{strayed}"
    return (
        f"Tuning changed the mean reward of completions from {plain(base.value)} to {plain(tuned.value)}, by "
        f"{estimate(change, is_signed=True)}.{strayed}"
    )


def implicit_reward_sentence(rows: Rows) -> str:
    """Say what the implicit reward of a word is, and how far it ranks words like the reward does."""
    tau = pick(rows, metric="tau", words="all", target="implicit_reward")
    says = "The implicit reward of a word is how much likelier tuning made it, in nats; no probe is involved."
    if tau is None:
        return says
    return (
        f"{says} It ranks words like the reward does, with Kendall’s τ = {estimate(tau)}. {against_chance(tau)}".strip()
    )


def tuning_sentence(rows: Rows) -> str:
    """Say how the tuning went (section `tuning`)."""
    return f"How the tuning went, by step. {lines.tuning_change(rows)}."


def base_model_sentence(rows: Rows) -> str:
    """Say how a base model that was trained here came about (section `base_model`)."""
    bits, tokens, kept = (pick(rows, metric=metric) for metric in ("bits_per_byte", "tokens", "kept_step"))
    if bits is None or tokens is None or kept is None:
        return "How the base model was trained from scratch."
    return (
        f"The base model was trained from scratch on {count(tokens.value)} tokens, counting repeats. The weights of "
        f"step {count(kept.value)} were kept; held-out texts take {plain(bits.value, 3)} bits per byte."
    )


def divergence_sentence(rows: Rows) -> str:
    """Say which layer's weights tuning moved most (section `divergence_by_layer`)."""
    top = max((row for row in rows if row.metric == "divergence"), key=size_of, default=None)
    most = f" Layer {top.layer} moved most, by {number(top.value)}." if top else ""
    return f"How far tuning moved each layer: the sum over its parameters of the L2 norm of tuned minus base.{most}"


def layers_sentence(n_selected: int, n: int, sites: Sequence[str] = ("mlp_out",)) -> str:
    """Say how many layers have a dictionary, and of what unless it is the MLP output."""
    names = " and ".join(SITE_NAMES.get(site, site) for site in sites)
    read = f", on their {names}" if set(sites) - {"mlp_out"} else ""
    return (
        f"Dictionaries were trained on {n_selected} of {n} layers{read}. Divergence is the sum of the L2 "
        "norms of tuned minus base over a layer’s parameters."
    )


def autoencoders_sentence(rows: Rows) -> str:
    """Say how many dictionaries there are, and how little they reconstruct at worst, beside their controls."""
    controls = [row.value for row in rows if row.metric == "fvu" and _is_control(row)]
    rows = [row for row in rows if not _is_control(row)]
    worst = max((row.value for row in rows if row.metric == "fvu"), default=None)
    n = len({(row.model, row.layer, row.site, row.group) for row in rows})
    left = f"; none leaves more than {percent(worst)} of the variance unexplained" if worst is not None else ""
    beside = (
        f" Controls whose decoder stayed random while the rest was trained leave {percent(min(controls))} or more."
        if controls
        else ""
    )
    return f"{n} {_DICTIONARIES[n == 1]}, measured on held-out texts{left}.{beside}"


_DICTIONARIES = ("dictionaries", "dictionary")


def _is_control(row: ResultRow) -> bool:
    return str(row.group).endswith("random decoder")


def differences_sentence(rows: Rows) -> str:
    """Say what the mean change of activations raises where it is the largest share, and what components add."""
    means = [row for row in rows if row.metric == "mean_share"]
    if not means:
        return "What tuning changed of activations, without a dictionary."
    row = max(means, key=lambda row: row.value)
    where = f"layer {row.layer}" + (f", {SITE_NAMES[row.site]}" if row.site not in (None, "mlp_out") else "")
    here = (other for other in rows if (other.layer, other.site) == (row.layer, row.site))
    first = max((other for other in here if other.metric == "component_share"), key=size_of, default=None)
    more = f" The first principal component holds {percent(first.value)} of their variance." if first else ""
    tokens = str(row.group).partition(": ")[2]
    return (
        f"At {where} the mean change of activations, over all tokens, is {percent(row.value)} of the changes’ mean"
        f" square; read through the unembedding it raises: {tokens}.{more}"
    )


def latent_scaling_sentence(rows: Rows) -> str:
    """Say how many features explain the tuned model alone, and how many with the models exchanged."""
    tuned, base = (pick(rows, metric="exclusive", model=model, layer=None) for model in ("tuned", "base"))
    if tuned is None or base is None:
        return (
            "How far each feature’s direction explains both models’ activations. A dictionary of changes has the"
            " directions in which the models differ, so none of its features counts as one model’s alone."
        )
    twin, of_twins = (pick(rows, metric="exclusive", model=model, layer=None) for model in ("twin", "twin_of_twin"))
    beside = ""
    if twin is not None and of_twins is not None:
        beside = (
            f" In a twin tuned by another seed it is {count(twin.value)} of {count(twin.n)} against the base model, and"
            f" {count(of_twins.value)} of {count(of_twins.n)} against another twin."
        )
    return (
        f"The directions of {count(tuned.value)} features of {count(tuned.n)} explain the tuned model’s activations and"
        f" not the base model’s. With the two models exchanged it is {count(base.value)} of {count(base.n)}: what does"
        f" not exceed that share says nothing of tuning.{beside}"
    )


def pretrained_sentence(rows: Rows) -> str:
    """Say how well dictionaries made elsewhere reconstruct (section `sae_check`)."""
    checked = [row for row in rows if row.metric == "fvu"]
    worst = max((row.value for row in checked), default=None)
    left = f"; none left more than {percent(worst)} of the variance unexplained" if worst is not None else ""
    what = f"{len(checked)} {_DICTIONARIES[len(checked) == 1]} made elsewhere"
    return f"{what}, checked on a few thousand tokens of their place{left}."


def forecast_sentence(rows: Rows) -> str:
    """Say how well the preference data forecast what was learned; empty where nothing was forecast."""
    explained = pick(rows, metric="r2", group="preferred")
    if explained is None:
        return ""
    chance = f"; chance {plain(explained.null_high)}" if explained.null_high is not None else ""
    verdict = "forecasts" if explained.beats_null else "does not forecast"
    parts = [
        f"How chosen responses differ from rejected ones of the same length {verdict} which of {count(explained.n)} "
        "features the implicit reward of held-out responses prefers: R² on features left out "
        f"{estimate(explained)}{chance}."
    ]
    for measure, name in _MEASURES_OF_LEARNING.items():
        ranked = pick(rows, metric="rank_correlation", group=measure)
        if ranked:
            reach = f"; chance {plain(ranked.null_high)}" if ranked.null_high is not None else ""
            parts.append(f"Rank correlation with {name}: {estimate(ranked, is_signed=True)}{reach}.")
    counts = {row.group: row for row in rows if row.metric == "count"}
    if FATES[0] in counts and FATES[1] in counts and FATES[2] in counts:
        parts.append(
            f"{count(counts[FATES[0]].value)} features are in the data and learned, {count(counts[FATES[1]].value)} in "
            f"the data and not learned, {count(counts[FATES[2]].value)} learned and not in the data (false discovery "
            "rates 5 %). The forecast was made before the tuning, and is hashed."
        )
    return " ".join(parts)


_MEASURES_OF_LEARNING = {
    "preferred": "that preference",
    "moved": "how far each feature’s mean moved",
    "credit": "each feature’s part of the implicit reward",
}


def cost_sentence(rows: Rows) -> str:
    """Say what all stages took, and on which machine."""
    stages: dict[str, dict[str, float]] = {}
    for row in rows:
        stages.setdefault(str(row.group), {})[row.metric] = row.value
    timed = {name: values for name, values in stages.items() if "minutes" in values}
    peaks = [values["peak_rss_mb"] for values in timed.values() if "peak_rss_mb" in values]
    cores, memory, gpu = (pick(rows, metric=metric) for metric in ("cores", "memory_gb", "gpus"))
    machine = [
        f"{number(cores.value)} cores of {cores.group}" if cores else "",
        f"{memory.value:g} GB" if memory else "",
        str(gpu.group) if gpu else "",
    ]
    named = ", ".join(part for part in machine if part)
    says = f"{len(timed)} stages took {plain(sum(values['minutes'] for values in timed.values()), 1)} minutes"
    says += f" and at most {count(max(peaks))} MB of memory" if peaks else ""
    return f"{says}, on {named}." if named else f"{says}."
