"""Open pages of the explorer without a browser, many in one process, and list what went wrong on them."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
Show = Callable[..., list[str]]


class Kept(logging.Handler):
    """Keeps the last lines of the last traceback that the explorer logged."""

    says = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.says = " | ".join(line.strip() for line in logging.Formatter().format(record).splitlines()[-5:])

    def take(self) -> str:
        """Return it once."""
        says, self.says = self.says, ""
        return says


@contextmanager
def shows(*, public: bool = False) -> Iterator[Show]:
    """Yield `show(bundle, page, params)`, which opens a page and returns what failed, a line each.

    A line begins with `exception` where Streamlit shows one, with `notice` where the page says in the explorer's own
    words that it cannot be shown, and with `tag` where HTML is not the explorer's own. With `public`, paths of this
    machine on screen are lines too.
    """
    import pytest
    from streamlit import config
    from streamlit.components.v2 import manifest_scanner
    from streamlit.runtime.context import ContextProxy
    from streamlit.testing.v1 import AppTest

    from tests.app.reader import SCRIPT, STYLE, is_tame

    for name in ("streamlit", *(name for name in logging.root.manager.loggerDict if name.startswith("streamlit"))):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    kept = Kept()
    config._main_script_path = str(ROOT / "app" / "main.py")
    config.get_config_options(force_reparse=True)
    scanned = manifest_scanner.scan_component_manifests()
    with tempfile.TemporaryDirectory() as audits, pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest_scanner, "scan_component_manifests", lambda: scanned)
        patch.setattr(ContextProxy, "cookies", {})
        patch.setenv("LFP_AUDIT_URL", f"sqlite:///{audits}/audits.sqlite")
        patch.setenv("LFP_PUBLIC", "1" if public else "0")

        def show(bundle: Path, page: str, params: Mapping[str, str | list[str]] | None = None) -> list[str]:
            os.environ["LFP_BUNDLES"] = str(bundle)
            at = AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=200)
            for name, value in (params or {}).items():
                at.query_params[name] = value
            if page != "overview":
                at.switch_page(f"views/{page}.py")
            at.run()
            failed = [f"exception {each.message} | {' | '.join(each.stack_trace[-2:])}" for each in at.exception]
            html = [body for element in at.get("html") if (body := element.proto.body) not in (STYLE, SCRIPT)]
            for body in html:
                try:
                    is_tame(body)
                except AssertionError:
                    failed.append(f"tag {body[:300]}")
            failed += [f"notice {body[:300]} logged: {kept.take()}" for body in html if "This cannot be shown" in body]
            if public:
                shown = "\n".join([*html, *map(str, at)])
                failed += [f"path {place}" for place in (str(bundle.parent), str(ROOT)) if place in shown]
            return failed

        patch.setenv("LFP_BUNDLES", "")
        patch.setattr(logging.getLogger("app"), "handlers", [kept])
        patch.setattr(logging.getLogger("app"), "propagate", False)
        yield show
