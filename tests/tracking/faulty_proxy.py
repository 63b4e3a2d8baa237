"""A server between hfsuite and a real MLflow server, which fails as networks and servers do."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import requests

HANGS_S = 3.0


@dataclass
class Faults:
    """How often each fault befalls a request; what was asked for is done all the same in every second case.

    Args:
        errors: an error of the server.
        resets: the connection ends without an answer.
        hangs: no answer for seconds.
        delay_s: how long every answer takes.
        is_down: no answer to anything.
        answers: while it is not set, every answer waits for it.
    """

    errors: float = 0.0
    resets: float = 0.0
    hangs: float = 0.0
    delay_s: float = 0.0
    is_down: bool = False
    answers: threading.Event = field(default_factory=threading.Event)
    befell: int = 0
    chance: random.Random = field(default_factory=lambda: random.Random(3))

    def __post_init__(self) -> None:
        self.answers.set()


@contextmanager
def faulty(uri: str, faults: Faults) -> Iterator[str]:
    """The address under which the server at `uri` can be asked with these faults, which may be changed meanwhile."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if faults.is_down:
                faults.befell += 1
                self.reset()
                return
            faults.answers.wait()
            time.sleep(faults.delay_s)
            drawn, is_done = faults.chance.random(), faults.chance.random() < 0.5
            is_faulty = drawn < faults.errors + faults.resets + faults.hangs and self.path != "/health"
            reply = self.forward(body) if is_done or not is_faulty else None
            if not is_faulty:
                assert reply is not None
                self.send(reply.status_code, reply.content, reply.headers.get("Content-Type", "application/json"))
                return
            faults.befell += 1
            if drawn < faults.errors:
                self.send(
                    500, b'{"error_code": "INTERNAL_ERROR", "message": "the database is away"}', "application/json"
                )
            else:
                if drawn >= faults.errors + faults.resets:
                    time.sleep(HANGS_S)
                self.reset()

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

        def forward(self, body: bytes) -> Any:
            headers = {
                name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")
            }
            return requests.request(self.command, uri + self.path, data=body, headers=headers, timeout=60)

        def send(self, status: int, content: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def reset(self) -> None:
            self.close_connection = True
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, *_: Any) -> None:
            """Requests are no news either."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """Whoever hangs up early is no news."""

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
