"""The explorer under a real server, and Chromium to look at it."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run",
]  # fmt: skip


@contextlib.contextmanager
def explorer(*bundles, base_path=""):
    """Yields the address of an explorer on these bundles, below `base_path`; ends it afterwards.

    Its audits are where LFP_AUDIT_URL says, else in a folder that goes with it.
    """
    with tempfile.TemporaryDirectory() as folder:
        yield from _explorer(bundles, audits=f"sqlite:///{folder}/audits.sqlite", base_path=base_path)


def _explorer(bundles, *, audits, base_path):
    port = free_port()
    options = {"headless": "true", "port": port, "address": "127.0.0.1", "fileWatcherType": "none"}
    options |= {"baseUrlPath": base_path} if base_path else {}
    flags = [f"--server.{name}={value}" for name, value in options.items()]
    command = [sys.executable, "-m", "streamlit", "run", "app/main.py", *flags]
    environment = {"LFP_AUDIT_URL": audits, **os.environ, "LFP_BUNDLES": os.pathsep.join(map(str, bundles))}
    server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}/{base_path}".rstrip("/")
    try:
        wait_for(address)
        yield address
    finally:
        server.terminate()
        server.wait(timeout=20)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(address, *, seconds=60):
    """Until the server answers."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/_stcore/health", timeout=2) as answer:
            if answer.status == 200:
                return
        time.sleep(0.1)
    raise TimeoutError(f"{address} did not answer within {seconds} s")


@contextlib.contextmanager
def browser():
    """Yields a headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=ARGUMENTS)
        yield chromium
        chromium.close()


def settle(page):
    """Until the app has stopped running and its elements are in place."""
    page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]', timeout=60_000)
    page.wait_for_selector('[data-testid="stMainBlockContainer"] .stHtml', timeout=60_000, state="attached")
    page.wait_for_function("!document.querySelector('[data-testid=\"stSkeleton\"]')", timeout=60_000)
    page.wait_for_timeout(300)
