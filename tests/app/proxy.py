"""A small reverse proxy, as hosts put one before the explorer: it passes requests and websockets on."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator

import aiohttp
from aiohttp import web
from yarl import URL

from tests.app.serving import free_port

OF_ONE_HOP = ("Connection", "Keep-Alive", "Transfer-Encoding", "Upgrade")
"""Headers that are between two neighbours, which a proxy does not pass on."""


@contextlib.contextmanager
def proxy(upstream: str) -> Iterator[str]:
    """Yields the address of a proxy before `upstream`; ends it afterwards."""
    port, loop, is_up = free_port(), asyncio.new_event_loop(), threading.Event()
    is_over = asyncio.Event()

    async def serve() -> None:
        async with _client() as client:

            async def answer(request: web.Request) -> web.StreamResponse:
                return await _pass_on(request, client, upstream)

            application = web.Application()
            application.router.add_route("*", "/{path:.*}", answer)
            runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", port).start()
            is_up.set()
            await is_over.wait()
            await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert is_up.wait(timeout=20)
        yield f"http://127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(is_over.set)
        thread.join(timeout=20)
        loop.close()


@contextlib.asynccontextmanager
async def _client() -> AsyncIterator[aiohttp.ClientSession]:
    """A client that changes neither bodies nor cookies."""
    async with aiohttp.ClientSession(auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()) as client:
        yield client


async def _pass_on(request: web.Request, client: aiohttp.ClientSession, upstream: str) -> web.StreamResponse:
    address = URL(f"{upstream}{request.raw_path}", encoded=True)
    headers = request.headers.copy()
    is_socket = headers.get("Upgrade", "").lower() == "websocket"
    for name in OF_ONE_HOP:
        headers.popall(name, None)
    if is_socket:
        return await _pass_messages(request, client, address)
    sent = {"headers": headers, "data": await request.read(), "allow_redirects": False}
    async with client.request(request.method, address, **sent) as answer:
        received = answer.headers.copy()
        for name in OF_ONE_HOP:
            received.popall(name, None)
        return web.Response(status=answer.status, headers=received, body=await answer.read())


async def _pass_messages(request: web.Request, client: aiohttp.ClientSession, address: URL) -> web.WebSocketResponse:
    """Connect both sides of a websocket until either closes it."""
    asked = request.headers.get("Sec-WebSocket-Protocol", "").split(",")
    kept = {name: request.headers[name] for name in ("Host", "Origin", "Cookie") if name in request.headers}
    protocols = [part.strip() for part in asked if part.strip()]
    async with client.ws_connect(address, headers=kept, protocols=protocols, max_msg_size=0) as behind:
        front = web.WebSocketResponse(protocols=[behind.protocol] if behind.protocol else (), max_msg_size=0)
        await front.prepare(request)
        sides = (asyncio.create_task(_copy(front, behind)), asyncio.create_task(_copy(behind, front)))
        await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
        await front.close()
        for side in sides:
            side.cancel()
    return front


async def _copy(
    source: web.WebSocketResponse | aiohttp.ClientWebSocketResponse,
    target: web.WebSocketResponse | aiohttp.ClientWebSocketResponse,
) -> None:
    async for message in source:
        if message.type is aiohttp.WSMsgType.BINARY:
            await target.send_bytes(message.data)
        elif message.type is aiohttp.WSMsgType.TEXT:
            await target.send_str(message.data)
