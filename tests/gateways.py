"""What stands between a client and a server: TLS, proxies, delays, and servers that never come to an end."""

from __future__ import annotations

import datetime
import http.client
import http.server
import ipaddress
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


class Gateway:
    """A real HTTP server in front of another one.

    Args:
        upstream: the port on loopback that requests are passed on to.
        context: for TLS.
        delay: seconds before each answer.
        answer: instead of passing a request on: takes its method, path and headers, and gives a status with a body and
            headers; None to pass it on after all.

    Attributes:
        requests: method and target of each request, in order.
        headers: of the latest request.
        delay_of_reading: seconds before the content of each request is read.
    """

    def __init__(
        self,
        upstream: int = 0,
        *,
        context: ssl.SSLContext | None = None,
        delay: float = 0.0,
        answer: Callable[[str, str, Any], tuple[int, bytes, dict[str, str]] | None] | None = None,
    ) -> None:
        gateway = self
        self.upstream, self.delay, self.answer = upstream, delay, answer
        self.requests: list[str] = []
        self.headers: Any = {}
        self.delay_of_reading = 0.0

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                gateway._handle(self)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = handle_any

            def do_CONNECT(self) -> None:
                gateway._tunnel(self)

            def log_message(self, *_: Any) -> None: ...

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, *_: Any) -> None: ...  # Clients that give up are the point.

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = int(self._server.server_address[1])
        self.uri = f"{'http' if context is None else 'https'}://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop it."""
        self._server.shutdown()
        self._server.server_close()

    def _handle(self, request: Any) -> None:
        pause = time.sleep  # The server's slowness, which is what is tested.
        pause(self.delay_of_reading)
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        self.requests.append(f"{request.command} {request.path}")
        self.headers = request.headers
        pause(self.delay)
        answer = self.answer(request.command, request.path, request.headers) if self.answer else None
        status, content, headers = answer or self._pass_on(request, body)
        request.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(content)

    def _pass_on(self, request: Any, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        parts = urlsplit(request.path)  # A proxy is sent whole addresses.
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        upstream = http.client.HTTPConnection("127.0.0.1", self.upstream, timeout=60)
        skipped = {"host", "connection", "content-length", "transfer-encoding", "accept-encoding"}
        headers = {name: value for name, value in request.headers.items() if name.lower() not in skipped}
        upstream.request(request.command, path, body, headers)
        answer = upstream.getresponse()
        content = answer.read()
        kind = answer.getheader("Content-Type")
        upstream.close()
        return answer.status, content, {"Content-Type": kind} if kind else {}

    def _tunnel(self, request: Any) -> None:
        self.requests.append(f"CONNECT {request.path}")
        with socket.create_connection(("127.0.0.1", self.upstream)) as there:
            request.send_response(200)
            request.end_headers()
            ends = {request.connection: there, there: request.connection}
            while True:
                for end in select.select(list(ends), [], [], 60)[0]:
                    content = end.recv(1 << 16)
                    if not content:
                        return
                    ends[end].sendall(content)


class Stream:
    """A server that sends to each client from a generator of pieces, for as long as anybody reads."""

    def __init__(self, pieces: Callable[[], Any]) -> None:
        self._pieces = pieces
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.uri = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.clients = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop it."""
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            self.clients += 1
            threading.Thread(target=self._send, args=(client,), daemon=True).start()

    def _send(self, client: socket.socket) -> None:
        try:
            client.recv(1 << 16)
            for piece in self._pieces():
                client.sendall(piece)
        except OSError:
            pass
        finally:
            client.close()


def one_byte_at_a_time() -> Any:
    """An answer that comes one byte every tenth of a second, beginning with its headers."""
    pause = time.sleep
    yield b"HTTP/1.1 200 OK\r\nX-Slow: "
    while True:
        yield b"a"
        pause(0.1)


def without_end() -> Any:
    """An answer whose body never ends."""
    yield b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
    while True:
        yield b" " * (1 << 16)


class Authority:
    """A certificate authority of the tests' own, with certificates for 127.0.0.1 and for a client.

    Args:
        folder: where the files are written.

    Attributes:
        certificate: the authority's own.
        server: certificate and key of the server, in one file.
        client: the same of a client.
    """

    def __init__(self, folder: Path) -> None:
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import NameOID

        now = datetime.datetime.now(datetime.UTC)
        names = {
            name: x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("ca", "server", "client")
        }
        keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in names}
        from cryptography.hazmat.primitives import hashes

        self.certificate, self.server, self.client = (folder / f"{name}.pem" for name in names)
        identifier = x509.SubjectKeyIdentifier.from_public_key(keys["ca"].public_key())
        for name, path in zip(names, (self.certificate, self.server, self.client), strict=True):
            builder = (
                x509.CertificateBuilder()
                .subject_name(names[name])
                .issuer_name(names["ca"])
                .public_key(keys[name].public_key())
                .serial_number(x509.random_serial_number())
                .not_valid_before(now - datetime.timedelta(days=1))
                .not_valid_after(now + datetime.timedelta(days=1))
                .add_extension(x509.BasicConstraints(ca=name == "ca", path_length=None), critical=True)
                .add_extension(x509.SubjectKeyIdentifier.from_public_key(keys[name].public_key()), critical=False)
                .add_extension(
                    x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
                )
            )
            if name == "server":
                address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
                builder = builder.add_extension(
                    x509.SubjectAlternativeName([address, x509.DNSName("localhost")]), critical=False
                )
            made = builder.sign(keys["ca"], hashes.SHA256())
            private = keys[name].private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            public = made.public_bytes(serialization.Encoding.PEM)
            path.write_bytes(public if name == "ca" else public + private)

    def context(self, *, asks_client: bool = False) -> ssl.SSLContext:
        """For a server with this authority's certificate; it may ask for the client's."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server)
        if asks_client:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.certificate)
        return context
