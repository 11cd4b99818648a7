"""The ten ways through the explorer that matter, each from an address, in a real browser.

A journey is given a page and the explorer's address, and says by an assertion that it arrived. The explorer offers the
bundles `reviews`, `pairs` and `other`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import expect

from lfp.testing.synthetic import make_bundle
from tests.app.serving import settle

Journey = Callable[[Any, str], None]


def journey_bundles(folder: Path) -> list[Path]:
    """The bundles that journeys lead through, made in a folder."""
    return [
        make_bundle(folder / "reviews", n_features=60, n_texts=40),
        make_bundle(folder / "pairs", n_features=40, n_texts=10, n_pairs=8, seed=1),
        make_bundle(folder / "other", n_features=60, n_texts=40, seed=2),
    ]


def read_the_headline(page: Any, address: str) -> None:
    """From the overview to the validation of what it claims."""
    page.goto(f"{address}/?bundle=reviews")
    expect(page.get_by_text("Tuned minus base").first).to_be_visible(timeout=20_000)
    page.get_by_test_id("stSidebarNav").get_by_text("Evidence").click()
    page.get_by_test_id("stPageLink").get_by_text("Validation").click()
    expect(page.get_by_text("Labels against weights").first).to_be_visible(timeout=20_000)


def use_a_preset(page: Any, address: str) -> None:
    """A list worth reading becomes the filter and the address."""
    page.goto(f"{address}/features?bundle=reviews")
    settle(page)
    page.get_by_text("labelled related, unimportant").first.click()
    page.wait_for_url(re.compile("related=yes"), timeout=15_000)
    settle(page)


def open_the_prompt(page: Any, address: str) -> None:
    """A label's card opens to what it was made from."""
    page.goto(f"{address}/feature?bundle=reviews&feature=0")
    settle(page)
    page.locator("details.lfp-asked summary").first.click()
    expect(page.locator("details.lfp-asked[open]").first).to_contain_text("prompt")


def follow_an_example(page: Any, address: str) -> None:
    """An example leads to its text, whose contributions sum to the estimate."""
    page.goto(f"{address}/feature?bundle=reviews&feature=3")
    settle(page)
    page.locator(".lfp-caption a").first.click()
    page.wait_for_url(re.compile(r"/inputs\?(bundle=reviews&)?text=\d+"), timeout=15_000)
    expect(page.get_by_text("adds up exactly").first).to_be_visible(timeout=20_000)


def list_every_contribution(page: Any, address: str) -> None:
    """The whole ledger of a text, from its address alone."""
    page.goto(f"{address}/inputs?bundle=reviews&text=3&every_part=true")
    settle(page)
    expect(page.get_by_test_id("stDataFrame")).to_have_count(2, timeout=20_000)


def set_a_pair_side_by_side(page: Any, address: str) -> None:
    """Chosen and rejected, and the features behind the difference."""
    page.goto(f"{address}/pairs?bundle=pairs")
    settle(page)
    expect(page.get_by_text("adds up exactly").first).to_be_visible(timeout=20_000)
    expect(page.get_by_text("The chosen response").first).to_be_visible()


def settle_a_disagreement(page: Any, address: str) -> None:
    """From the queue to the text that two judges part on."""
    page.goto(f"{address}/disagreements?bundle=reviews")
    settle(page)
    page.locator(".lfp-queue .said > a").first.click()
    page.wait_for_url(re.compile(r"/inputs\?(bundle=reviews&)?text=\d+"), timeout=15_000)
    settle(page)


def sort_the_drift(page: Any, address: str) -> None:
    """Features that tuning strengthened, by what they carry."""
    page.goto(f"{address}/drift?bundle=reviews&became=strengthened&drift_by=drifted")
    settle(page)
    expect(page.get_by_test_id("stDataFrame").first).to_be_visible(timeout=20_000)


def give_a_verdict(page: Any, address: str) -> None:
    """A list is made, a feature judged blind, and the queue counts it."""
    page.goto(f"{address}/queue?bundle=reviews")
    settle(page)
    page.get_by_label("Your name").fill("ann")
    page.get_by_label("Your name").press("Enter")
    settle(page)
    page.get_by_role("button", name="Make the list").click()
    page.get_by_text("yes", exact=True).first.click(timeout=20_000)
    page.get_by_role("button", name="Save, then see the label").click()
    expect(page.get_by_text("Is the label right?").first).to_be_visible(timeout=20_000)


def compare_two_runs(page: Any, address: str) -> None:
    """Two bundles side by side, with the features that match."""
    page.goto(f"{address}/runs?bundle=reviews&other=other")
    settle(page)
    expect(page.get_by_test_id("stDataFrame").first).to_be_visible(timeout=30_000)


JOURNEYS: tuple[Journey, ...] = (
    read_the_headline, use_a_preset, open_the_prompt, follow_an_example, list_every_contribution,
    set_a_pair_side_by_side, settle_a_disagreement, sort_the_drift, give_a_verdict, compare_two_runs,
)  # fmt: skip
