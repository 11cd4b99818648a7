"""A bundle in the formats of others: files for Neuronpedia, repositories of the hub, a page per feature."""

from typing import Literal

ExportKind = Literal["neuronpedia", "hub", "html"]
CREATOR_ID = "clkht01d40000jv08hvalcvly"
"""The user that owns what Neuronpedia imports, whom its own seeding of a database makes."""
