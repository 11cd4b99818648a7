"""Readers of a running explorer without a browser: they speak Streamlit's own protocol and read what is on a page."""

import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlencode

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import connect


@dataclass(frozen=True)
class Visit:
    """A page as a reader got it: how long that took, its HTML, and what went wrong."""

    seconds: float
    html: tuple[str, ...]
    faults: tuple[str, ...]


def visit(address, page, params, *, timeout_s=120):
    """Opens a page by its name in the address ("" is the first one) in a session of its own, as a link does."""
    message = BackMsg()
    message.rerun_script.page_name = page
    message.rerun_script.query_string = urlencode(params)
    stream = address.replace("http://", "ws://") + "/_stcore/stream"
    html, faults, started = [], [], time.perf_counter()
    with connect(stream, subprotocols=["streamlit"], max_size=None, open_timeout=timeout_s) as socket:
        socket.send(message.SerializeToString())
        for element in elements(socket, timeout_s=timeout_s):
            if element is None:
                html.clear()
            elif element.WhichOneof("type") == "html":
                html.append(element.html.body)
            elif element.WhichOneof("type") == "exception":
                faults.append(f"{element.exception.type}: {element.exception.message}")
        seconds = time.perf_counter() - started
    return Visit(seconds, tuple(html), tuple(faults))


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
