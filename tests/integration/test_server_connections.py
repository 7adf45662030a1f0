"""Every server that plain MLflow reaches is delivered to: through TLS, proxies and plugins, slow ones too."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from tests.conftest import (
    Server,
    StartProgram,
    all_runs,
    deliver,
    delivery_pids,
    free_port,
    memory_of,
    sync,
    wait_until,
)
from tests.delivery_settings import ChangeTiming
from tests.gateways import Authority, Gateway, Stream, one_byte_at_a_time, without_end
from trackdsl import experiment
from trackdsl._server import http as _http
from trackdsl._server._deadlines import deadlines
from trackdsl.delivery.environment import ProgramEnvironment
from trackdsl.delivery.environment_pipe import Pipe, _Sender, is_taken
from trackdsl.journal._lock import is_held
from trackdsl.journal._spool import wake
from trackdsl.store_format.servers import folder_of, server_of

#: Records one run, and ends without waiting for its delivery for long.
RECORD = """
import sys
from trackdsl import experiment
with experiment("reach", run_name=sys.argv[1]) as run:
    run.log_metric("loss", 0.5)
"""
#: The same, and waits for a line of input before it ends.
STAY = RECORD + "print('recorded'); sys.stdin.readline()\n"


@pytest.fixture
def gateway() -> Iterator[Callable[..., Gateway]]:
    """Opens gateways, and closes them."""
    opened: list[Any] = []

    def open_gateway(*args: Any, **kwargs: Any) -> Gateway:
        opened.append(Gateway(*args, **kwargs))
        return opened[-1]

    yield open_gateway
    for each in opened:
        each.close()


@pytest.fixture
def stream() -> Iterator[Callable[..., Stream]]:
    """Opens servers that never end their answers, and closes them."""
    opened: list[Stream] = []

    def open_stream(pieces: Callable[[], Any]) -> Stream:
        opened.append(Stream(pieces))
        return opened[-1]

    yield open_stream
    for each in opened:
        each.close()


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def names(uri: str) -> list[str]:
    """The names of the runs at a store that have ended well."""
    return [run.info.run_name for run in all_runs(uri) if run.info.status == "FINISHED"]


def blocked_by(spool: Path) -> list[str]:
    """What `trackdsl status` names as reasons."""
    done = subprocess.run(
        [sys.executable, "-m", "trackdsl.cli", "status", "--json"], capture_output=True, text=True, check=True
    )
    assert spool.is_dir()
    return [journal["error"] for journal in json.loads(done.stdout)["journals"] if journal["error"]]


def record(start: StartProgram, name: str, uri: str, mode: str = "online", **environment: str) -> None:
    """Record a run in a program of its own."""
    program = start(RECORD, name, TRACKDSL_MODE=mode, MLFLOW_TRACKING_URI=uri, **environment)
    code, _, err = program.finish()
    assert code == 0, err


def test_a_server_with_a_certificate_of_its_own(
    start: StartProgram, shared_server: Server, gateway: Callable[..., Gateway], authority: Authority, tmp_path: Path
) -> None:
    """MLflow's variable for the certificate counts, and a bundle for other servers does not replace it."""
    front = gateway(shared_server.port, context=authority.context())
    other = tmp_path / "other"
    other.mkdir()
    bundle = str(Authority(other).certificate)
    trusted = {"MLFLOW_TRACKING_SERVER_CERT_PATH": str(authority.certificate), "REQUESTS_CA_BUNDLE": bundle}
    record(start, "cert-path", front.uri, **trusted, CURL_CA_BUNDLE=bundle)
    wait_until(lambda: "cert-path" in names(shared_server.uri), "the run behind the certificate")


@pytest.mark.slow
def test_a_server_whose_certificate_is_not_checked(
    start: StartProgram, shared_server: Server, gateway: Callable[..., Gateway], authority: Authority, tmp_path: Path
) -> None:
    """MLflow's variable that switches off the check of certificates counts for sessions and for delivery."""
    front = gateway(shared_server.port, context=authority.context())
    other = tmp_path / "other"
    other.mkdir()
    program = start(
        """
        from trackdsl import start_logging, stop_logging
        start_logging("insecure").log_metric("loss", 1.0)
        stop_logging()
        """,
        TRACKDSL_MODE="online",
        MLFLOW_TRACKING_URI=front.uri,
        MLFLOW_TRACKING_INSECURE_TLS="true",
        REQUESTS_CA_BUNDLE=str(Authority(other).certificate),
    )
    code, _, err = program.finish()
    assert code == 0, err
    wait_until(lambda: "insecure" in names(shared_server.uri), "the run behind the certificate")


@pytest.mark.slow
def test_a_server_that_asks_for_a_clients_certificate(
    start: StartProgram, shared_server: Server, gateway: Callable[..., Gateway], authority: Authority
) -> None:
    """The certificate of the client is shown to the server."""
    front = gateway(shared_server.port, context=authority.context(asks_client=True))
    record(
        start,
        "client-cert",
        front.uri,
        MLFLOW_TRACKING_SERVER_CERT_PATH=str(authority.certificate),
        MLFLOW_TRACKING_CLIENT_CERT_PATH=str(authority.client),
    )
    wait_until(lambda: "client-cert" in names(shared_server.uri), "the run of the client with a certificate")


def test_a_server_that_only_a_proxy_finds(
    start: StartProgram, shared_server: Server, gateway: Callable[..., Gateway]
) -> None:
    """A name that this machine cannot resolve is resolved by the proxy; one in NO_PROXY is not."""
    proxy = gateway(shared_server.port)
    record(start, "by-proxy", "http://tracking.invalid:5000", HTTP_PROXY=proxy.uri, http_proxy=proxy.uri)
    wait_until(lambda: "by-proxy" in names(shared_server.uri), "the run behind the proxy")
    assert any("http://tracking.invalid:5000/api/2.0" in request for request in proxy.requests)
    dead = f"http://127.0.0.1:{free_port()}"
    direct = {"HTTP_PROXY": dead, "http_proxy": dead, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    record(start, "no-proxy", shared_server.uri, **direct)
    wait_until(lambda: "no-proxy" in names(shared_server.uri), "the run past the proxy")


@pytest.mark.slow
def test_tls_through_a_proxy(
    start: StartProgram, shared_server: Server, gateway: Callable[..., Gateway], authority: Authority
) -> None:
    """A proxy that opens a tunnel is used for addresses with TLS."""
    front = gateway(shared_server.port, context=authority.context())
    proxy = gateway(front.port)
    record(
        start,
        "tunnel",
        f"https://localhost:{front.port}",
        HTTPS_PROXY=proxy.uri,
        https_proxy=proxy.uri,
        MLFLOW_TRACKING_SERVER_CERT_PATH=str(authority.certificate),
    )
    wait_until(lambda: "tunnel" in names(shared_server.uri), "the run behind the tunnel")
    assert f"CONNECT localhost:{front.port}" in proxy.requests


@pytest.mark.long
@pytest.mark.slow
def test_a_server_that_takes_its_time(
    start: StartProgram, shared_server: Server, gateway: Callable[..., Gateway]
) -> None:
    """A server that needs three seconds for each answer gets deliveries and sessions."""
    slow = gateway(shared_server.port, delay=3.0)
    program = start(
        """
        from trackdsl import start_logging, stop_logging
        start_logging("three-seconds").log_metric("loss", 1.0)
        stop_logging()
        """,
        TRACKDSL_MODE="online",
        MLFLOW_TRACKING_URI=slow.uri,
    )
    code, _, err = program.finish()
    assert code == 0, err
    wait_until(lambda: "three-seconds" in names(shared_server.uri), "the run at the slow server")


@pytest.mark.slow
def test_a_server_that_takes_longer_than_a_first_try(
    shared_server: Server, gateway: Callable[..., Gateway], change_timing: ChangeTiming, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that takes longer than delivery waits at first is waited for longer the next time."""
    change_timing(late_request=4.0)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")  # Instead of 10 seconds.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    slow = gateway(shared_server.port, delay=1.2)
    with experiment("reach", run_name="late-answers", tracking_uri=slow.uri) as run:
        run.log_metric("loss", 0.5)
    deliver()
    assert int(os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"]) > 1
    assert names(shared_server.uri).count("late-answers") == 1


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("pieces", [one_byte_at_a_time, without_end])
def test_a_server_that_never_ends_its_answers_holds_up_nobody(
    start: StartProgram, stream: Callable[..., Stream], sqlite_store: str, tmp_path: Path, pieces: Callable[[], Any]
) -> None:
    """Another store is delivered to, `status` names the reason, memory stays bounded, and SIGTERM ends it all."""
    spool = tmp_path / "spool"
    endless = stream(pieces)
    program = start(STAY, "stuck", TRACKDSL_MODE="online", MLFLOW_TRACKING_URI=endless.uri)
    assert program.say() == "recorded"
    wait_until(lambda: endless.clients, "a request to the endless server")
    record(start, "elsewhere", sqlite_store)
    wait_until(lambda: "elsewhere" in names(sqlite_store), "the run in the other store")
    reason = "timed out" if pieces is one_byte_at_a_time else "more than"
    wait_until(lambda: any(reason in error for error in blocked_by(spool)), "the reason", patience=150)
    assert all(memory_of(pid) < 1 << 30 for pid in delivery_pids(spool))
    main = min(delivery_pids(spool))
    os.kill(main, signal.SIGTERM)
    # The program, which lives, starts another one: that this one ends is what counts.
    wait_until(lambda: main not in delivery_pids(spool), "the delivery process to end")
    program.kill()


@pytest.mark.slow
def test_plugins_of_mlflows_client_are_asked_for_headers(
    start: StartProgram, shared_server: Server, gateway: Callable[..., Gateway], tmp_path: Path
) -> None:
    """A plugin that adds a header to each request adds it to those of sessions and of delivery."""

    def guard(_method: str, _path: str, headers: Any) -> tuple[int, bytes, dict[str, str]] | None:
        return None if headers.get("X-Team") == "vision" else (403, b"Which team?", {})

    guarded = gateway(shared_server.port, answer=guard)
    plugin = tmp_path / "plugins"
    (plugin / "team_header-1.0.dist-info").mkdir(parents=True)
    (plugin / "team_header-1.0.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: team-header\nVersion: 1.0\n"
    )
    (plugin / "team_header-1.0.dist-info/entry_points.txt").write_text(
        "[mlflow.request_header_provider]\nteam = team_header:TeamHeader\n"
    )
    (plugin / "team_header.py").write_text(
        "class TeamHeader:\n"
        "    def in_context(self): return True\n"
        "    def request_headers(self): return {'X-Team': 'vision'}\n"
    )
    program = start(
        """
        from trackdsl import start_logging, stop_logging
        start_logging("with-header").log_metric("loss", 1.0)
        stop_logging()
        """,
        TRACKDSL_MODE="online",
        MLFLOW_TRACKING_URI=guarded.uri,
        PYTHONPATH=os.pathsep.join([str(plugin), os.environ.get("PYTHONPATH", "")]),
    )
    code, _, err = program.finish()
    assert code == 0, err
    wait_until(lambda: "with-header" in names(shared_server.uri), "the run with the plugin's header")


@pytest.mark.slow
def test_a_delivery_thread_gives_up_a_server_that_never_ends_its_answers(
    start: StartProgram, stream: Callable[..., Stream]
) -> None:
    """Only requests of the delivery thread are limited; those that the program makes itself are left alone."""
    endless = stream(without_end)
    program = start(
        """
        import sys, threading, requests
        from trackdsl import experiment
        from trackdsl.store_format.progress import read_progress
        from trackdsl.journal._target import targets
        with experiment("reach", run_name="thread") as run:
            run.log_metric("loss", 0.5)
        (target,) = targets()
        while "more than" not in (read_progress(target.writer.directory) or run).error:
            threading.Event().wait(0.05)
        answer = requests.get(sys.argv[1], stream=True)
        print(sum(len(answer.raw.read(1 << 20)) for _ in range(200)) >> 20, flush=True)
        import os
        os._exit(0)
        """,
        endless.uri,
        TRACKDSL_MODE="online",
        TRACKDSL_DELIVERY="thread",
        MLFLOW_TRACKING_URI=endless.uri,
    )
    assert program.say() == "200"


def test_a_token_that_is_set_later_reaches_the_delivery_process(
    start: StartProgram, shared_server: Server, gateway: Callable[..., Gateway], tmp_path: Path
) -> None:
    """What a program without a token has recorded is delivered with that of the next one; no token is on the disk."""

    def guard(_method: str, _path: str, headers: Any) -> tuple[int, bytes, dict[str, str]] | None:
        allowed = headers.get("Authorization") == "Bearer right-token-4711"
        return None if allowed else (401, b"You are not authenticated.", {})

    guarded = gateway(shared_server.port, answer=guard)
    spool = tmp_path / "spool"
    first = start(STAY, "without-token", TRACKDSL_MODE="online", MLFLOW_TRACKING_URI=guarded.uri)
    assert first.say() == "recorded"
    wait_until(lambda: any("401" in error for error in blocked_by(spool)), "the refusal")
    first.kill()
    assert is_held(spool / "delivery.lock")
    record(start, "with-token", guarded.uri, MLFLOW_TRACKING_TOKEN="right-token-4711")
    wait_until(lambda: "with-token" in names(shared_server.uri), "the run of the program with a token")
    wait_until(lambda: "without-token" in names(shared_server.uri), "the run of the program without one")
    kept = [path for path in spool.rglob("*") if path.is_file()]
    assert not any(b"right-token-4711" in path.read_bytes() for path in kept)


@pytest.mark.slow
def test_sync_brings_its_token_to_the_delivery_process_that_is_at_work(
    start: StartProgram, shared_server: Server, gateway: Callable[..., Gateway], tmp_path: Path
) -> None:
    """`sync` brings its token to the running delivery process, also for a running program without a token."""

    def guard(_method: str, _path: str, headers: Any) -> tuple[int, bytes, dict[str, str]] | None:
        allowed = headers.get("Authorization") == "Bearer right-token-4712"
        return None if allowed else (401, b"You are not authenticated.", {})

    guarded = gateway(shared_server.port, answer=guard)
    program = start(STAY, "synced", TRACKDSL_MODE="online", MLFLOW_TRACKING_URI=guarded.uri)
    assert program.say() == "recorded"
    wait_until(lambda: any("401" in error for error in blocked_by(tmp_path / "spool")), "the refusal")
    done = sync(MLFLOW_TRACKING_TOKEN="right-token-4712")
    assert done.returncode == 0, done.stderr
    assert "synced" in names(shared_server.uri)
    program.resume()
    assert program.finish()[0] == 0


@pytest.mark.slow
def test_sync_waits_until_its_token_has_arrived(
    start: StartProgram, shared_server: Server, gateway: Callable[..., Gateway], tmp_path: Path
) -> None:
    """`sync` does not give up on requests that fail before the delivery process has read its token."""

    def guard(_method: str, _path: str, headers: Any) -> tuple[int, bytes, dict[str, str]] | None:
        allowed = headers.get("Authorization") == "Bearer right-token-4713"
        return None if allowed else (401, b"You are not authenticated.", {})

    guarded = gateway(shared_server.port, answer=guard)
    spool = tmp_path / "spool"
    program = start(STAY, "late-token", TRACKDSL_MODE="online", MLFLOW_TRACKING_URI=guarded.uri)
    assert program.say() == "recorded"
    wait_until(lambda: any("401" in error for error in blocked_by(spool)), "the refusal")
    main = min(delivery_pids(spool))
    os.kill(main, signal.SIGSTOP)
    try:
        done: list[Any] = []
        thread = threading.Thread(target=lambda: done.append(sync(MLFLOW_TRACKING_TOKEN="right-token-4713")))
        thread.start()
        wait_until(lambda: not is_taken(spool), "the token in the pipe")
        asked = len(guarded.requests)
        wake(spool)
        wait_until(lambda: len(guarded.requests) > asked + 1, "two refusals more")
    finally:
        os.kill(main, signal.SIGCONT)
    thread.join()
    assert done[0].returncode == 0, done[0].stderr
    program.kill()


@pytest.mark.slow
def test_a_token_that_the_program_refreshes(
    start: StartProgram, shared_server: Server, gateway: Callable[..., Gateway]
) -> None:
    """A token that changes in `os.environ` while the program runs is used from then on."""
    valid = ["token-one-81"]

    def guard(_method: str, _path: str, headers: Any) -> tuple[int, bytes, dict[str, str]] | None:
        allowed = headers.get("Authorization") == f"Bearer {valid[0]}"
        return None if allowed else (401, b"Token has expired.", {})

    guarded = gateway(shared_server.port, answer=guard)
    program = start(
        """
        import os, sys
        from trackdsl import experiment, flush
        with experiment("reach", run_name="refreshed") as run:
            run.log_metric("loss", 1.0)
            print(flush(60))
            sys.stdin.readline()
            os.environ["MLFLOW_TRACKING_TOKEN"] = "token-two-82"
            run.log_metric("loss", 2.0)
            print(flush(60))
        """,
        TRACKDSL_MODE="online",
        MLFLOW_TRACKING_URI=guarded.uri,
        MLFLOW_TRACKING_TOKEN="token-one-81",
    )
    assert program.say() == "True"
    valid[0] = "token-two-82"
    program.resume()
    assert program.say() == "True"
    assert program.finish()[0] == 0


@pytest.mark.slow
def test_a_program_keeps_its_own_environment_beside_another(
    start: StartProgram, shared_server: Server, gateway: Callable[..., Gateway]
) -> None:
    """Two programs that run at the same time, each with a token for its own workspace, are not mixed up."""
    # Other tests record at the same server.
    both = [f"{name}-{os.urandom(4).hex()}" for name in ("one", "two")]
    seen: dict[str, set[str]] = {}
    lock = threading.Lock()

    def note(_method: str, path: str, headers: Any) -> None:
        with lock:
            seen.setdefault(headers.get("Authorization", ""), set()).add(path.partition("?")[0])

    noting = gateway(shared_server.port, answer=note)
    programs = [
        start(STAY, name, TRACKDSL_MODE="online", MLFLOW_TRACKING_URI=noting.uri, MLFLOW_TRACKING_TOKEN=f"of-{name}")
        for name in both
    ]
    for program in programs:
        assert program.say() == "recorded"
    for program in programs:
        program.resume()
        assert program.finish()[0] == 0
    wait_until(lambda: set(both) <= set(names(shared_server.uri)), "both runs")
    create = "/api/2.0/mlflow/runs/create"
    assert [create in seen.get(f"Bearer of-{name}", ()) for name in both] == [True, True]


@pytest.mark.slow
def test_idle_programs_keep_their_environments_when_delivery_restarts(
    start: StartProgram, shared_server: Server, gateway: Callable[..., Gateway], tmp_path: Path
) -> None:
    """A delivery process that a third program starts delivers for two idle programs with their own tokens."""
    spool = tmp_path / "spool"
    # Other tests record at the same server.
    one, two, three = (f"{name}-{os.urandom(4).hex()}" for name in ("one", "two", "three"))
    created: set[str] = set()
    open_ = threading.Event()

    def answer(_method: str, path: str, headers: Any) -> tuple[int, bytes, dict[str, str]] | None:
        if not open_.is_set():
            return 503, b"not now", {}
        if path.partition("?")[0].endswith("/runs/create"):
            created.add(headers.get("Authorization", ""))
        return None

    guarded = gateway(shared_server.port, answer=answer)
    for_store = {"TRACKDSL_MODE": "online", "MLFLOW_TRACKING_URI": guarded.uri}
    programs = [start(STAY, name, MLFLOW_TRACKING_TOKEN=f"of-{name}", **for_store) for name in (one, two)]
    for program in programs:
        assert program.say() == "recorded"
    wait_until(lambda: any("503" in error for error in blocked_by(spool)), "the refusal")
    earlier = set(delivery_pids(spool))
    for pid in earlier:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not earlier & set(delivery_pids(spool)), "the end of the delivery process")
    open_.set()
    record(start, three, guarded.uri, MLFLOW_TRACKING_TOKEN=f"of-{three}")
    wait_until(lambda: {one, two, three} <= set(names(shared_server.uri)), "all runs")
    assert created == {f"Bearer of-{name}" for name in (one, two, three)}
    for program in programs:
        program.kill()


@pytest.mark.slow
def test_a_redirect_to_tls_is_named(
    start: StartProgram, gateway: Callable[..., Gateway], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session and delivery both name the address with TLS that a redirect leads to."""

    def redirect(_method: str, path: str, _headers: Any) -> tuple[int, bytes, dict[str, str]]:
        return 301, b"", {"Location": f"{secure.uri}{path}"}

    secure = gateway(answer=lambda *_: (200, b"{}", {}))
    plain = gateway(answer=redirect)
    from trackdsl import start_logging
    from trackdsl.errors import TrackingServerError

    monkeypatch.setenv("TRACKDSL_MODE", "online")
    with pytest.raises(TrackingServerError, match=f"redirects to {secure.uri}"):
        start_logging("r", config={"tracking_uri": plain.uri})
    program = start(STAY, "redirected", TRACKDSL_MODE="online", MLFLOW_TRACKING_URI=plain.uri)
    assert program.say() == "recorded"
    wait_until(lambda: any(f"redirects to {secure.uri}" in e for e in blocked_by(tmp_path / "spool")), "the reason")
    program.kill()


@pytest.mark.parametrize("status", [401, 403, 408, 425, 429, 500, 502, 503, 504, 507])
def test_a_session_is_spooled_while_the_server_has_a_bad_moment(
    gateway: Callable[..., Gateway], monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """A temporary failure of the server raises by default, and the session is spooled if that was asked for."""
    from trackdsl import start_logging, stop_logging
    from trackdsl.errors import TrackingServerError

    monkeypatch.setenv("TRACKDSL_MODE", "online")
    monkeypatch.setenv("TRACKDSL_DELIVERY", "thread")
    busy = gateway(answer=lambda *_: (status, b"not now", {}))
    with pytest.raises(TrackingServerError, match=str(status)) as caught:
        start_logging("r", config={"tracking_uri": busy.uri})
    assert "not as an MLflow server" not in str(caught.value)
    monkeypatch.setenv("TRACKDSL_MODE", "offline")
    assert caught.value.status == status
    start_logging("r", config={"tracking_uri": busy.uri}, offline="spool")
    stop_logging()


def test_an_answer_that_was_read_to_its_end_has_no_deadline(gateway: Callable[..., Gateway]) -> None:
    """An answer that was read to its end has no deadline any more, though MLflow does not close it."""
    source = gateway(answer=lambda *_: (200, b"x" * 300_000, {}))
    with _http.session() as session:
        answer = session.get(source.uri, stream=True, timeout=5)
        assert len(deadlines._of) == 1
        assert sum(map(len, answer.iter_content(1 << 16))) == 300_000
        assert not deadlines._of


class Request:
    """A request that notes that it was ended."""

    ended = False

    def expire(self) -> None:
        self.ended = True


def test_requests_of_a_forked_child_have_deadlines() -> None:
    """The thread that ends requests is not there in a forked child, and its parent's requests are not the child's."""
    request = Request()
    deadlines.begin(request, 600)
    child = os.fork()
    if not child:
        try:
            own = Request()
            deadlines.begin(own, 0.01)
            wait_until(lambda: own.ended, "the child's request to end")
            os._exit(7 if request not in deadlines._of else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    deadlines.over(request)


def test_nothing_is_tried_again_after_the_deadline(stream: Callable[..., Stream]) -> None:
    """Retries of MLflow's client, as in a program with a delivery thread, end at the deadline."""

    def slow_first_line() -> Iterator[bytes]:
        yield b"HTTP/1.1 "
        for piece in one_byte_at_a_time():
            yield piece[-1:]

    endless = stream(slow_first_line)
    raised: list[Exception] = []

    def ask() -> None:
        _http.bound_requests(of_thread=True)
        with requests.Session() as session:
            session.mount("http://", HTTPAdapter(max_retries=Retry(total=5, allowed_methods=None)))
            try:
                session.get(endless.uri, timeout=0.3)
            except requests.exceptions.RequestException as error:
                raised.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    wait_until(lambda: not thread.is_alive(), "the request to end")
    assert isinstance(raised[0], _http.TooSlow)


def test_an_environment_that_is_larger_than_the_pipe_is_handed_over(tmp_path: Path) -> None:
    """What does not fit is sent as soon as delivery has read the first part, also beside that of another program."""
    large = {
        "MLFLOW_TRACKING_TOKEN": os.urandom(100_000).hex(),
        "AWS_PROFILE": b"\xff".decode(errors="surrogateescape"),
    }
    wanted = [ProgramEnvironment("01", large), ProgramEnvironment("02", {**large, "AWS_REGION": "x"})]
    (tmp_path / "spool").mkdir()
    pipe = Pipe(tmp_path / "spool")
    send = [_Sender().send for _ in wanted]
    found: list[ProgramEnvironment] = []

    def look() -> bool:
        for handed, hand_over in zip(wanted, send, strict=True):
            hand_over(tmp_path / "spool", handed)
        found.extend(pipe.read())
        return len(found) == 2

    try:
        wait_until(look, "both environments")
        assert sorted(found) == wanted
    finally:
        pipe.close()


@pytest.mark.long
@pytest.mark.slow
def test_a_program_ends_though_delivery_is_killed_again_and_again(start: StartProgram, tmp_path: Path) -> None:
    """If the delivery process is killed again and again, the program still ends, with its records kept."""
    new = f"sqlite:///{tmp_path}/new.db"  # MLflow makes its tables.
    (tmp_path / "deadly/mlflow").mkdir(parents=True)
    (tmp_path / "deadly/mlflow/__init__.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    path = os.pathsep.join([str(tmp_path / "deadly"), os.environ.get("PYTHONPATH", "")])
    program = start(RECORD, "kept", TRACKDSL_MODE="online", MLFLOW_TRACKING_URI=new, PYTHONPATH=path)
    code, _, err = program.finish()
    assert code == 0, err
    assert "It is kept" in err
    assert sync().returncode == 0
    assert names(new) == ["kept"]


def test_a_server_whose_folder_cannot_be_used_is_named_in_the_log(
    start: StartProgram, shared_server: Server, tmp_path: Path
) -> None:
    """For a server whose folder cannot be used, the log names it, and no process is started again and again."""
    spool = tmp_path / "spool"
    record(start, "left", shared_server.uri, mode="offline")
    folder = folder_of(spool, server_of(shared_server.uri))
    folder.parent.mkdir(mode=0o700, exist_ok=True)
    folder.write_text("in the way")
    command = [sys.executable, "-m", "trackdsl.cli", "sync", "--timeout", "1"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1
    assert (spool / "delivery.log").read_text().count(str(folder)) == 1
    folder.unlink()
    assert sync().returncode == 0
    assert "left" in names(shared_server.uri)
