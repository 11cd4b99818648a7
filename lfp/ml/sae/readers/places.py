"""Name places as TransformerLens does, and find the place that a name of TransformerLens or transformers means."""

from __future__ import annotations

import re

from lfp.util.types import Place, Site

_HOOK_NAMES: dict[Site, str] = {
    "mlp_out": "blocks.{}.mlp.hook_out",
    "resid_post": "blocks.{}.hook_resid_post",
    "attn_out": "blocks.{}.hook_attn_out",
}
_ATTENTION = r"(?:self_attn|self_attention|attention|attn)"
_NAMES: dict[Site, re.Pattern[str]] = {
    "mlp_out": re.compile(
        r"\.(\d+)\.(?:hook_mlp_out|mlp(?:\.(?:hook_out|dense_4h_to_h|c_proj|down_proj))?|post_feedforward_layernorm)$"
    ),
    "resid_post": re.compile(r"(?:layers|h|blocks)\.(\d+)(?:\.(?:hook_resid_post|hook_out))?$"),
    "attn_out": re.compile(
        rf"\.(\d+)\.(?:hook_attn_out|attn\.hook_out|{_ATTENTION}(?:\.(?:o_proj|c_proj|dense|out_proj))?)$"
    ),
}
"""Names of each site in TransformerLens and in transformers; the group is the layer."""
_BEFORE_LAYER = re.compile(r"\.(\d+)\.(?:hook_resid_pre|hook_in)$")
"""The residual stream before a layer, which is the one after the layer before."""


def hook_name(place: Place) -> str:
    """Name a place as TransformerLens does."""
    return _HOOK_NAMES[place.site].format(place.layer)


def find_place(name: str) -> Place | None:
    """Find the place that a name means; None for a place that no run reads."""
    before = _BEFORE_LAYER.search(name)
    if before is not None and int(before[1]) > 0:
        return Place(int(before[1]) - 1, "resid_post")
    for site, pattern in _NAMES.items():
        match = pattern.search(name)
        if match is not None:
            return Place(int(match[1]), site)
    return None
