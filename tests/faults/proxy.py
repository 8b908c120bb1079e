"""A TCP proxy before a database server, in a thread of its own, that breaks connections where its rule says so."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

from sqlalchemy import URL

from tests.faults.messages import READERS, REFUSALS, Reader, Transaction
from tests.faults.rules import Fate, Rule, Verdict

_CHUNK = 65536
#: closing sends a reset instead of an orderly end
_RESET = struct.pack("ii", 1, 0)


class Proxy:
    """Relays every connection to one server; `connections` counts those that were accepted."""

    def __init__(self, server: URL, rule: Rule | None = None) -> None:
        self.rule = rule or Rule()
        self.connections = 0
        self._server = server
        self._loop = asyncio.new_event_loop()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._open: set[_Pipe] = set()

    @property
    def port(self) -> int:
        """Where it listens on loopback."""
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> URL:
        """The server's URL, through the proxy."""
        return self._server.set(host="127.0.0.1", port=self.port)

    def start(self) -> None:
        """Accept connections."""
        self._thread.start()

    def stop(self) -> None:
        """Break what is open and accept nothing more."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def break_all(self) -> None:
        """Reset every connection that is open."""
        self._loop.call_soon_threadsafe(lambda: [pipe.reset() for pipe in list(self._open)])

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._relay, sock=self._listener))
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        for pipe in list(self._open):
            pipe.reset()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        verdict = self.rule.on_connect(number)
        await asyncio.sleep(verdict.delay)
        if verdict.fate is Fate.TURN_AWAY:
            await self._turn_away(reader, writer)
            return
        if verdict.fate is not Fate.PASS:
            _reset(writer)
            return
        try:
            upstream = await asyncio.open_connection(self._server.host, self._server.port)
        except OSError:
            _reset(writer)
            return
        pipe = _Pipe(number, self.rule, READERS[self._server.get_backend_name()](), (reader, writer), upstream)
        self._open.add(pipe)
        # The stream's own callback would print a cancellation.
        with contextlib.suppress(asyncio.CancelledError):
            await pipe.run()
        self._open.discard(pipe)

    async def _turn_away(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kind = self._server.get_backend_name()
        with contextlib.suppress(OSError):
            if kind == "postgresql":
                await reader.read(_CHUNK)  # there the client speaks first
            writer.write(REFUSALS[kind]())
            await writer.drain()
            writer.close()


Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Pipe:
    """One connection and its other half."""

    def __init__(self, number: int, rule: Rule, messages: Reader, client: Stream, server: Stream) -> None:
        self._rule = rule
        self._messages = messages
        self._transaction = Transaction(number)
        self._from_client, self._to_client = client
        self._from_server, self._to_server = server
        self._cut_answer = False

    async def run(self) -> None:
        """Relay until one side ends, then end the other."""
        with contextlib.suppress(OSError):
            await asyncio.gather(self._forward(), self._return())

    def reset(self) -> None:
        """Break both halves."""
        _reset(self._to_client)
        _reset(self._to_server)

    async def _forward(self) -> None:
        try:
            while data := await self._from_client.read(_CHUNK):
                for message, text in self._messages.read(data):
                    if text is not None and not await self._judge(text):
                        return
                    self._to_server.write(message)
                await self._to_server.drain()
        except OSError:
            # The client broke off; its server session learns of it as if there were no proxy.
            _reset(self._to_server)
        finally:
            self._to_server.close()

    async def _judge(self, text: bytes) -> bool:
        """Whether the statement may go on to the server."""
        verdict: Verdict = self._rule.on_statement(self._transaction.statement(text))
        await asyncio.sleep(verdict.delay)
        if verdict.fate is Fate.RESET:
            self.reset()
            return False
        self._cut_answer = self._cut_answer or verdict.fate is Fate.CUT_ANSWER
        return True

    async def _return(self) -> None:
        try:
            while data := await self._from_server.read(_CHUNK):
                if self._cut_answer:
                    self.reset()
                    return
                self._to_client.write(data)
                await self._to_client.drain()
        except OSError:
            _reset(self._to_client)
        finally:
            self._to_client.close()


@contextlib.contextmanager
def proxied(server: URL, rule: Rule | None = None) -> Iterator[Proxy]:
    """A proxy for a while."""
    proxy = Proxy(server, rule)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
