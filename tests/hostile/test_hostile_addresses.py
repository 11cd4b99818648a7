"""Some addresses by seed that the explorer must not trip over, in public mode, and what a page that fails shows."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from streamlit import config

from app.session import permalinks
from tests.hostile import addresses
from tests.hostile.pages import shows


def test_addresses_of_all_pages_are_shown_without_a_fault() -> None:
    found = addresses.main(seed=0, count=len(addresses.VIEWS))
    assert found["values"] > 50 and found["faults"] == []


def test_every_page_has_its_parameters_among_the_addresses() -> None:
    known = {kind for kind in vars(permalinks).values() if isinstance(kind, type) and kind.__name__.endswith("View")}
    assert known == set(addresses.VIEWS.values()) - {None}


@pytest.mark.parametrize("public", [True, False])
def test_a_page_that_fails_says_so_in_a_sentence(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, public: bool
) -> None:
    from app.session import contents

    def fails(*_: object, **__: object) -> None:
        raise KeyError(str(tmp_path))

    monkeypatch.setattr(contents, "visible_pages", fails)
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    with shows(public=public) as show:
        (failed,) = show(copy, "overview")
    shown, _, logged = failed.partition(" logged: ")
    assert shown.startswith("notice ") and "he page failed on this bundle" in shown and "KeyError" not in shown
    assert logged.endswith(f"KeyError: '{tmp_path}'")
    assert (f"lfp validate {copy}" in shown) is not public and (str(tmp_path) in shown) is not public


def test_settings_of_the_explorer_hold_in_any_working_directory(bundle: Path) -> None:
    """Streamlit reads a settings file only in some of them."""
    with shows() as show:
        config.set_option("client.showErrorDetails", "full")
        config.set_option("client.disableDataExport", False)
        assert show(bundle, "about") == []
        assert config.get_option("client.showErrorDetails") == "none"
        assert config.get_option("client.disableDataExport") is True
