"""A server of the tests' own over loopback HTTP, and requests to it."""

import json
import threading
import time
from contextlib import contextmanager
from http.client import HTTPConnection

import uvicorn

from etegrec_hf.serving.app import create_app
from etegrec_hf.serving.options import ServeOptions


class Client:
    """Asks a server at a port of this machine."""

    def __init__(self, port: int, service):
        self.port, self.service = port, service

    def request(self, method: str, path: str, body: bytes | None = None, headers=None) -> tuple[int, dict, bytes]:
        """Returns status, headers and body of an answer."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def get(self, path: str, headers=None) -> tuple[int, dict]:
        status, _, body = self.request("GET", path, headers=headers)
        return status, json.loads(body)

    def recommend(self, headers=None, **request) -> tuple[int, dict]:
        status, _, body = self.request("POST", "/recommend", json.dumps(request).encode(), headers)
        return status, json.loads(body)

    def metric(self, name: str) -> float:
        """Returns the value of one line of the page of figures."""
        page = self.request("GET", "/metrics")[2].decode()
        values = [line.rpartition(" ")[2] for line in page.splitlines() if line.rpartition(" ")[0] == name]
        return float(values[0]) if values else 0.0


def wait_until(holds, seconds: float = 20.0) -> None:
    """Waits until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never held"
        time.sleep(0.01)


@contextmanager
def serving(folder: str, **options):
    """Serves a folder in a thread, and gives a [`Client`] once the model answers."""
    app = create_app(folder, ServeOptions(**options))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        client = Client(server.servers[0].sockets[0].getsockname()[1], app.state.service)
        slot = app.state.service.slot
        wait_until(lambda: slot.model is not None or slot.error, 300)  # an export takes long on a busy machine
        assert slot.model is not None, slot.error
        yield client
    finally:
        server.should_exit = True
        thread.join()
