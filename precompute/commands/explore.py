"""The verb `explore`: serve the explorer on bundles, from any folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import lfp
from lfp.bundle.manifest import read_manifest
from lfp.errors import ConfigError, DependencyError


def explore(
    bundle: str | Path | Sequence[str | Path], *, port: int = 8501, address: str | None = None, headless: bool = False
) -> None:
    """Serve the explorer on one bundle or several until it is interrupted.

    A browser opens, unless `headless`. `address` is the network address to listen on; all of them by default. Raises
    BundleError where there is no bundle, DependencyError without Streamlit, ConfigError where the server ends at once.
    """
    paths = [bundle] if isinstance(bundle, str | Path) else list(bundle)
    folders = [Path(path).expanduser().resolve() for path in paths]
    for folder in folders:
        read_manifest(folder)
    main = Path(lfp.__file__).resolve().parents[1] / "app" / "main.py"
    if not main.is_file():
        raise DependencyError(f"{main}: the explorer is not installed with this package; install lfp-explorer again")
    options = {"server.port": port, "server.headless": str(headless).lower(), "server.fileWatcherType": "none"}
    if address is not None:
        options["server.address"] = address
    flags = [f"--{name}={value}" for name, value in options.items()]
    # -P keeps a folder named `app` in the current folder from being imported in place of the explorer.
    command = [sys.executable, "-P", "-m", "streamlit", "run", str(main), *flags]
    environment = {**os.environ, "LFP_BUNDLES": os.pathsep.join(map(str, folders))}
    code = subprocess.run(command, env=environment, check=False).returncode
    if code > 0:
        raise ConfigError(f"the explorer's server ended with exit code {code}; see its message above")
