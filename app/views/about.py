"""About: the bundle's models, files and hashes, tuning, config, cost, how to cite it and how to download it."""

import tempfile
from pathlib import Path

import streamlit as st

from app.components.html import panels
from app.components.results import about
from app.session import bundles, cache
from app.session.cache import ask
from app.widgets import frame
from lfp.bundle import queries
from lfp.bundle.manifest import HASHED_BYTES, Manifest, read_manifest
from lfp.bundle.store.connection import Store
from lfp.bundle.writer import archive_bytes, write_archive
from lfp.config import drop_retired
from lfp.report import html
from lfp.report.figures import bars, lines
from lfp.report.rows import tuning_rows

LARGEST = 200_000_000
"""Bytes of the largest bundle offered as a download, which the server holds in memory."""


def show_files(manifest: Manifest) -> None:
    st.subheader("Models")
    heads, rows = about.models(manifest)
    st.html(panels.table(heads, rows) if rows else panels.note("This bundle names no models."))
    st.subheader("Files")
    st.html(panels.note(about.checked(manifest, HASHED_BYTES)) + panels.table(*about.tables(manifest)))
    with st.expander("Models and dictionaries in the bundle"):
        none = "None. The playground and ablations need a run with artifacts = true."
        st.html(panels.table(*about.artifacts(manifest)) if manifest.artifacts else panels.note(none))


def show_config(manifest: Manifest) -> None:
    st.subheader("Config")
    st.html(panels.note("All settings of the run. python -m precompute run CONFIG.toml repeats it."))
    kind = st.segmented_control("Format", list(about.WRITERS), default="TOML", required=True, key="config_as")
    written = about.WRITERS[kind](drop_retired(manifest.config))
    ending = kind.lower()
    st.download_button(
        f"Download config.{ending}", data=written, file_name=f"{manifest.bundle_id}.{ending}",
        icon=":material/download:", on_click="ignore",
    )  # fmt: skip
    st.code(written, language=ending, height=320)


def zip_bundle(store: Store) -> bytes:
    """Return the bundle as a zip, written to a temporary file when the download is requested."""
    store.fetch()
    with tempfile.TemporaryFile() as file:
        write_archive(store.path, store.manifest, file, name=f"lfp-{store.manifest.bundle_id}")
        file.seek(0)
        return file.read()


def show_download(store: Store) -> None:
    st.subheader("Download")
    size, place = archive_bytes(store.manifest), where(store)
    store.fetch([])
    if read_manifest(store.path) != store.manifest:  # public mode hides parts of it
        says = "This bundle’s manifest names folders of the host, so it cannot be downloaded here. Ask the host for it."
        st.html(panels.note(says))
    elif size <= LARGEST:
        st.download_button(
            f"Download the bundle, {about.size(size)}", data=lambda: zip_bundle(store),
            file_name=f"lfp-{store.manifest.bundle_id}.zip", mime="application/zip", icon=":material/folder_zip:",
            on_click="ignore",
        )  # fmt: skip
        st.html(panels.note("Unzip it, and open it with LFP_BUNDLES=FOLDER make app."))
    elif bundles.is_public():
        st.html(panels.note(f"The bundle is too large to download here ({about.size(size)}). Ask the host for a copy."))
    else:
        says = f"The bundle has {about.size(size)}, above the download limit of {about.size(LARGEST)}. Copy its folder:"
        st.html(panels.note(says))
        st.code(f"rsync -a '{place}/' COPY/" if isinstance(store.source, Path) else place, language="bash")


def where(store: Store) -> str:
    return str(store.source.resolve() if isinstance(store.source, Path) else store.source)


def show_report(store: Store) -> None:
    st.download_button(
        "Download the report as one page", data=lambda: html.page(html.prepare(store)), mime="text/html",
        file_name=f"lfp-report-{store.manifest.bundle_id}.html", icon=":material/description:", on_click="ignore",
    )  # fmt: skip
    st.html(panels.note("All figures and tables of the report in one file of HTML, which opens without a network."))


def show_tuning(store: Store) -> None:
    table = ask(queries.run.tuning, store)
    rows = tuning_rows(table.to_pydict())
    if not rows:
        return
    st.subheader(lines.tuning_change(rows))
    figure = bars.tuning_curve(rows, table.to_pydict())
    if figure is not None:
        frame.show_figure(figure, key="tuning")
    says = "The tuning by step: thin lines are single steps, before each changed the weights, thick lines their means."
    frame.caption(says, lambda: table, name="tuning")


def show_cost(manifest: Manifest) -> None:
    st.subheader("Cost")
    heads, rows = about.cost(manifest)
    if not rows:
        st.html(panels.note("This bundle does not record the cost of its stages."))
        return
    machine = about.machine(manifest)
    table = panels.table(heads, rows, strong=[len(rows) - 1])
    st.html(panels.note("Wall time and peak memory by stage.") + (panels.facts(machine) if machine else "") + table)


def show() -> None:
    store = cache.current()
    manifest = store.manifest
    folder = {} if bundles.is_public() else {"folder": where(store)}
    st.html(
        panels.heading("About this bundle", manifest.title, manifest.notes)
        + panels.facts(about.facts(manifest) | folder)
    )
    show_download(store)
    show_report(store)
    st.subheader("How to cite")
    st.html(panels.note("Cite the paper that introduced the method, and this bundle."))
    st.code(about.PAPER + "\n\n" + about.citation(manifest), language=None)
    show_files(manifest)
    show_tuning(store)
    st.subheader("Made with")
    st.html(panels.facts(manifest.versions) if manifest.versions else panels.note("No versions are recorded."))
    show_cost(manifest)
    show_config(manifest)


show()
