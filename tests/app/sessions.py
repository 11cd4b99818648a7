"""Readers of a running explorer without a browser: they speak Streamlit's own protocol and read what is on a page."""

import random
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from urllib.parse import urlencode

import pyarrow as pa
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import connect


@dataclass(frozen=True)
class Visit:
    """A page as a reader got it: how long that took, its HTML, what went wrong, tables, and buttons' ids by name."""

    seconds: float
    html: tuple[str, ...]
    faults: tuple[str, ...]
    tables: tuple[pa.Table, ...] = ()
    buttons: Mapping[str, str] = field(default_factory=dict)


def session(address, *, timeout_s=120):
    """A new session: a socket for `turn`, to be used in a with statement."""
    stream = address.replace("http://", "ws://") + "/_stcore/stream"
    return connect(stream, subprotocols=["streamlit"], max_size=None, open_timeout=timeout_s)


def visit(address, page, params, *, timeout_s=120):
    """Opens a page by its name in the address ("" is the first one) in a session of its own, as a link does."""
    started = time.perf_counter()
    with session(address, timeout_s=timeout_s) as socket:
        found = turn(socket, page, params, timeout_s=timeout_s)
        return replace(found, seconds=time.perf_counter() - started)


def turn(socket, page, params, *, button="", timeout_s=120):
    """Opens a page in a session, or presses a button of it, by its id."""
    message, started = BackMsg(), time.perf_counter()
    message.rerun_script.page_name = page
    message.rerun_script.query_string = urlencode(params)
    if button:
        state = message.rerun_script.widget_states.widgets.add()
        state.id, state.trigger_value = button, True
    socket.send(message.SerializeToString())
    html, faults, tables, buttons = [], [], [], {}
    for element in elements(socket, timeout_s=timeout_s):
        kind = element and element.WhichOneof("type")
        if element is None:
            for held in (html, tables, buttons):
                held.clear()
        elif kind == "html":
            html.append(element.html.body)
        elif kind == "dataframe":
            tables.append(pa.ipc.open_stream(element.dataframe.arrow_data.data).read_all())
        elif kind == "button":
            buttons[element.button.label] = element.button.id
        elif kind == "exception":
            faults.append(f"{element.exception.type}: {element.exception.message}")
    return Visit(time.perf_counter() - started, tuple(html), tuple(faults), tuple(tables), buttons)


def elements(socket, *, timeout_s):
    """Yield what the server puts on the page until its script has run; None where the script begins again."""
    while True:
        message = ForwardMsg.FromString(socket.recv(timeout=timeout_s))
        kind = message.WhichOneof("type")
        if kind == "delta":
            yield message.delta.new_element
        elif kind == "script_finished":
            if message.script_finished != ForwardMsg.FINISHED_EARLY_FOR_RERUN:
                return
            yield None


def walk(address, walks, *, think_s=0.0):
    """Several readers at once, each going through pages of its own: a list of visits each.

    `walks` has a list of (page, parameters) for each reader. Before each page it reads for `think_s` on average, for
    any time up to twice that, as its number draws: readers who all turn a page at once are not what is meant.
    """

    def one(number, pages):
        draw, visits = random.Random(number), []
        for page, params in pages:
            time.sleep(draw.uniform(0, 2 * think_s))
            visits.append(visit(address, page, params))
        return visits

    with ThreadPoolExecutor(len(walks)) as readers:
        return list(readers.map(one, range(len(walks)), walks))
