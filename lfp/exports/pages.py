"""A bundle as static pages: one per feature, and lists that lead to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lfp.bundle.queries.whole_features import whole_features
from lfp.bundle.store.connection import Store
from lfp.exports.files import File
from lfp.report.feature_pages import feature_page, list_feature, list_name, list_pages, page_name
from lfp.util.types import Progress

_REPORT_EVERY = 256


def page_files(store: Store, feature_ids: Sequence[int], *, progress: Progress) -> Iterator[File]:
    """Yield a page per feature, then the pages of the list."""
    numbers, listed = sorted(set(feature_ids)), []
    pages, after = frozenset(numbers), [*numbers[1:], None]
    for at, whole in enumerate(whole_features(store, numbers)):
        before = numbers[at - 1] if at else None
        html = feature_page(whole, store.manifest, around=(before, after[at]), pages=pages)
        listed.append(list_feature(whole))
        yield File(page_name(whole.feature.feature_id), html.encode())
        if at % _REPORT_EVERY == 0 or at + 1 == len(numbers):
            progress("html: features", at + 1, len(numbers), 0.0)
    for page, html in enumerate(list_pages(listed, store.manifest)):
        yield File(list_name(page), html.encode())
