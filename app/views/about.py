"""What this bundle is: its models, files and hashes, its config, how to cite it and how to have it."""

import tempfile

import streamlit as st

from app.components.html import panels
from app.components.results import about
from app.components.results import about as config_text
from app.session import cache, public_mode
from lfp.bundle.archive import archive_bytes, write_archive
from lfp.bundle.manifest import HASHED_BYTES, read_manifest

LARGEST = 200_000_000  # bytes of a bundle up to which it is handed out: the server holds a download in memory


def files(manifest):
    st.subheader("Models")
    heads, rows = about.models(manifest)
    st.html(panels.table(heads, rows) if rows else panels.note("This bundle names no models."))
    st.subheader("Files")
    st.html(panels.note(about.checked(manifest, HASHED_BYTES)) + panels.table(*about.tables(manifest)))
    with st.expander("Models and dictionaries in the bundle"):
        none = "None: Try it and ablations need a run with artifacts = true."
        st.html(panels.table(*about.artifacts(manifest)) if manifest.artifacts else panels.note(none))


def config(manifest):
    st.subheader("Config")
    st.html(panels.note("Every choice of the run. python -m precompute run CONFIG.toml makes it again."))
    kind = st.segmented_control("As", list(config_text.WRITERS), default="TOML", required=True, key="config_as")
    written = config_text.WRITERS[kind](manifest.config)
    ending = kind.lower()
    st.download_button(
        f"Download config.{ending}",
        data=written,
        file_name=f"{manifest.bundle_id}.{ending}",
        icon=":material/download:",
        on_click="ignore",
    )
    st.code(written, language=ending, height=320)


def cite(manifest):
    st.subheader("How to cite")
    st.html(panels.note("The paper whose method this is, and this bundle."))
    st.code(about.PAPER + "\n\n" + about.citation(manifest), language=None)


def archive(store):
    """The bundle as a zip, made in a temporary file when it is asked for."""
    name = f"lfp-{store.manifest.bundle_id}"
    with tempfile.TemporaryFile() as file:
        write_archive(store.path, store.manifest, file, name=name)
        file.seek(0)
        return file.read()


def have(store):
    st.subheader("Have it")
    size, folder = archive_bytes(store.manifest), str(store.path.resolve())
    if read_manifest(store.path) != store.manifest:  # as strangers are shown it
        says = "Its manifest names folders of the host, so it is not handed out; ask whoever runs this explorer."
        st.html(panels.note(says))
    elif size <= LARGEST:
        st.download_button(
            f"Download the bundle, {about.size(size)}",
            data=lambda: archive(store),
            file_name=f"lfp-{store.manifest.bundle_id}.zip",
            mime="application/zip",
            icon=":material/folder_zip:",
            on_click="ignore",
        )
        st.html(panels.note("Unzip it, and open it with LFP_BUNDLES=FOLDER make app. Nothing else is needed."))
    elif public_mode.is_public():
        says = f"At {about.size(size)} it is too large to download here; ask whoever runs this explorer for a copy."
        st.html(panels.note(says))
    else:
        limit = f"It is {about.size(size)}; downloads end at {about.size(LARGEST)}. Copy the folder, all of it:"
        st.html(panels.note(limit))
        st.code(f"rsync -a '{folder}/' COPY/", language="bash")


def cost(manifest):
    st.subheader("Cost")
    heads, rows = about.cost(manifest)
    if not rows:
        st.html(panels.note("This bundle does not say what its stages took."))
        return
    says = "What each stage took by the clock, and the most memory it held. No table depends on it."
    machine = about.machine(manifest)
    table = panels.table(heads, rows, strong=[len(rows) - 1])
    st.html(panels.note(says) + (panels.facts(machine) if machine else "") + table)


def show():
    store = cache.current()
    manifest = store.manifest
    folder = {} if public_mode.is_public() else {"folder": str(store.path.resolve())}
    st.html(
        panels.heading("About this bundle", manifest.title, manifest.notes)
        + panels.facts(about.facts(manifest) | folder)
    )
    have(store)
    cite(manifest)
    files(manifest)
    st.subheader("Made with")
    st.html(panels.facts(manifest.versions) if manifest.versions else panels.note("No versions are stated."))
    cost(manifest)
    config(manifest)


show()
