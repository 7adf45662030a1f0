"""`capture()` and `attach()`: the current run, passed by hand to wherever work continues."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import json
import os
import pickle
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import StartProgram, all_runs, deliver, delivery_pids, end_delivery, examples
from trackdsl import (
    Context,
    ContextError,
    OptionError,
    RunNotReady,
    attach,
    capture,
    configure,
    current_run,
    settings,
    stage,
)
from trackdsl.distributed._wire import Chosen, WireContext, decode, encode, is_same_spool, public
from trackdsl.journal._origin import read_origin
from trackdsl.journal._reader import read_all
from trackdsl.journal._replay import replay
from trackdsl.journal._spool import journals
from trackdsl.testing import Captured, capture_runs

TEXT = {"run": "0" * 32, "name": "n", "path": "n", "uri": "sqlite:///x.db", "cwd": "/", "host": "h", "spool": "/s"}


def parents(captured: Captured) -> dict[str, str | None]:
    """The names of recorded runs, each with that of its parent."""
    return {run.name: run.parent and run.parent.name for run in captured.runs}


def in_journals(spool: Path) -> dict[str, Any]:
    """The runs in the journals of a spool, by name."""
    return {
        run.name: run for run in replay((event, journal) for journal in journals(spool) for event in read_all(journal))
    }


def test_within_a_process() -> None:
    """A context can be entered anywhere, also after its run has ended; then the former run is current again."""
    with capture_runs() as captured:
        assert not capture()
        with stage("early") as early:
            context = capture()
            assert context
        assert early.path in repr(context)
        with stage("later") as later:
            with attach(context) as run:
                assert run is early is current_run()
                run.log_metric("late", 1)
                with stage("of early"), attach(pickle.loads(pickle.dumps(capture()))), stage("further in"):
                    pass
            assert current_run() is later
            with attach(Context(None)), stage("root"):
                pass
            with attach(Context(None).to_text()):
                assert current_run() is None
            with attach(context.to_text()) as same, stage("of early"):
                assert same is early
            with stage("of later"):
                pass
    assert parents(captured) == {
        "early": None,
        "of early": "early",
        "further in": "of early",
        "later": None,
        "root": None,
        "of later": "later",
    }
    assert (captured.one("early").metric("late"), captured.one("early").status) == (1, "FINISHED")


def test_steps_travel_along() -> None:
    """A metric has the step of the loop in which the context was captured."""
    from trackdsl import log_metric, steps

    with capture_runs() as captured, stage("s"):
        for _ in steps(range(3)):
            text = capture().to_text()
        with attach(text), stage("inner"):
            pass
        with attach(text):
            log_metric("m", 1)
    assert captured.one("s").metrics["m"][0].step == 2


def test_in_tasks() -> None:
    """Tasks that attach to different runs at the same time do not affect each other, also with the same context."""

    async def work(name: str, entered: attach) -> None:
        with entered as run:
            await asyncio.sleep(0)
            with stage(name):
                await asyncio.sleep(0)
                run.log_metric(name, 1)

    async def main() -> None:
        contexts = []
        for name in "ab":
            with stage(name):
                contexts.append(capture())
        shared = attach(contexts[0])
        with stage("around") as around:
            await asyncio.gather(
                work("of a", attach(contexts[0])),
                work("of b", attach(contexts[1])),
                work("shared 1", shared),
                work("shared 2", shared),
            )
            assert current_run() is around

    with capture_runs() as captured:
        asyncio.run(main())
    assert parents(captured) == {"a": None, "b": None, "around": None, "of a": "a", "of b": "b"} | dict.fromkeys(
        ["shared 1", "shared 2"], "a"
    )
    assert captured.one("a").metrics.keys() == {"of a", "shared 1", "shared 2"}


def test_exits_out_of_order() -> None:
    """Blocks that are left in the wrong order, or in another context, leave no run current."""
    with capture_runs():
        with stage("a"):
            a = capture()
        with stage("b"):
            b = capture()
        with stage("around") as around:
            for first, second in ((a, b), (b, a), (a, a), (Context(None), a)):
                one, two = attach(first), attach(second)
                one.__enter__()
                two.__enter__()
                one.__exit__()
                assert current_run() is around
                two.__exit__()
                assert current_run() is around
            for context in (a, Context(None)):
                elsewhere = attach(context)
                contextvars.copy_context().run(elsewhere.__enter__)
                with stage("inner") as inner:
                    elsewhere.__exit__()
                    assert current_run() is inner
            again = attach(a)
            with again, stage("x"), again, stage("y") as y:
                assert y.parent is not None
                assert y.parent.name == "a"
            assert current_run() is around


def test_disabled() -> None:
    """Where recording is off, attaching does nothing, and runs that are open stay current."""
    with capture_runs() as captured, stage("a") as run:
        context = capture()
        configure(mode="disabled")
        with attach(context) as same:
            same.log_metric("m", 1)
            assert current_run() is run
            assert same is not run
        assert current_run() is run
        configure(mode="offline")
    assert not captured.one("a").metrics


@pytest.mark.parametrize("wrong", [None, 3, b"", object(), attach])
def test_what_is_no_context(wrong: Any) -> None:
    """Anything but a context or its text is refused at once."""
    with pytest.raises(OptionError, match=r"attach\(\) takes what capture\(\) returned") as raised:
        attach(wrong)
    assert raised.value.option == "context"


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        " ",
        "{}",
        "[" * 100_000,
        "9" * 10_000,
        json.dumps(TEXT | {"run": "xyz"}),
        json.dumps(TEXT | {"run": " ".join("0" * 32)}),
        json.dumps(TEXT | {"run": 3}),
        json.dumps(TEXT | {"step": 1 << 64}),
        json.dumps(TEXT | {"settings": {"mode": "elsewhere"}}),
        json.dumps(TEXT | {"mlflow": ["one"]}),
        json.dumps(TEXT)[:-1],
    ],
    ids=range(12),
)
def test_texts_of_no_context(text: str) -> None:
    """A text that is not a context raises an error that shows its beginning."""
    with pytest.raises(ContextError) as raised:
        attach(text)
    assert text.startswith(raised.value.text)
    assert len(raised.value.text) <= 200


def test_errors_show_no_secrets() -> None:
    """The beginning of a refused text is shown without the credentials in it."""
    with pytest.raises(ContextError) as raised:
        attach(json.dumps({"uri": "http://me:hunter2@host"}))
    assert "hunter2" not in f"{raised.value} {raised.value.text}"


def test_what_a_newer_version_adds_is_passed_over() -> None:
    """Unknown fields do no harm, so that programs of different versions can be mixed."""
    assert decode(json.dumps(TEXT | {"new": 1, "settings": {"newer": [2]}})) == decode(json.dumps(TEXT))


ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
CARRIED = st.builds(
    WireContext,
    run=st.binary(min_size=16, max_size=16).map(bytes.hex),
    name=ANY_TEXT,
    path=ANY_TEXT,
    uri=ANY_TEXT,
    cwd=ANY_TEXT,
    host=ANY_TEXT | st.just(os.uname().nodename),
    spool=ANY_TEXT,
    journal=ANY_TEXT,
    experiment=st.none() | ANY_TEXT,
    step=st.integers(-(1 << 63), (1 << 63) - 1),
    mlflow=st.none() | st.tuples(ANY_TEXT, ANY_TEXT),
    settings=st.builds(
        Chosen,
        mode=st.sampled_from([None, "online", "offline", "disabled"]),
        strict=st.sampled_from([None, False]),
        secret_names=st.none() | st.tuples(ANY_TEXT),
        public_names=st.none() | st.tuples(ANY_TEXT),
    ),
)


@given(wire=CARRIED)
@hypothesis.settings(max_examples=examples(40))
def test_texts_come_back(wire: WireContext) -> None:
    """A context that was written as text, which is ASCII, comes back the same, and attaching to it never raises."""
    text = encode(wire)
    assert text.isascii()
    assert "\0" not in text
    assert decode(text) == wire
    before = settings.configured()
    try:
        with capture_runs() as captured:
            with attach(text), stage("inside"):
                pass
            assert current_run() is None
        assert wire.settings.mode == "disabled" or len(captured.named("inside")) == 1
    finally:
        settings.restore(before)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(TEXT)) | ANY_TEXT, inner),
    max_leaves=20,
)


@given(text=ANY_TEXT | JSON.map(json.dumps) | JSON.map(lambda value: json.dumps(TEXT | {"settings": value})))
def test_any_text(text: str) -> None:
    """Whatever a text says, it gives a context or is refused."""
    with contextlib.suppress(ContextError):
        assert bool(Context.from_text(text)) is bool(text)


def test_contexts_outlive_a_capture_of_runs() -> None:
    """A context of one test leads to the current store, not to the folder of an earlier `capture_runs`."""
    text = json.dumps(TEXT | {"run": "1" * 32})
    context = Context.from_text(text)
    for _ in range(2):
        with capture_runs() as captured, attach(context) as first, attach(text) as second, stage("inside"):
            assert first is second
        assert [run.name for run in captured.runs] == ["inside"]
    with attach(context) as first, attach(text) as second:
        assert first is second
        assert first.target.delivers


def test_another_machine_may_have_the_same_name(tmp_path: Path) -> None:
    """Two containers with the same host name and spool path are distinguished by the program's journal."""
    spool = settings.spool()
    assert spool is not None
    with stage("s"):
        (journal,) = journals(spool)
        wire = decode(capture().to_text())
        assert is_same_spool(wire)
        journal.rename(tmp_path / "elsewhere")
        assert not is_same_spool(wire)
        (tmp_path / "elsewhere").rename(journal)


@pytest.mark.slow
def test_ids_at_mlflow_of_runs_of_others(start: StartProgram, tmp_path: Path, sqlite_store: str) -> None:
    """A program that has recorded nothing yet gets the ids of runs that it has from others, another machine too."""
    program = start(
        """
        import json, os, subprocess, sys
        from trackdsl import capture, stage

        ask = "import os, trackdsl\\nwith trackdsl.attach(os.environ['ASKED']) as run: print(run.run_id, flush=True)"
        with stage("s") as run:
            print(run.run_id)
            if (pid := os.fork()) == 0:
                print(run.run_id, flush=True)
                os._exit(0)
            os.waitpid(pid, 0)
            text = capture().to_text()
            for asked in (text, json.dumps(json.loads(text) | {"host": "elsewhere", "spool": "/elsewhere"})):
                subprocess.run([sys.executable, "-c", ask], env={**os.environ, "ASKED": asked})
                os.environ["TRACKDSL_SPOOL"] += "-of-another-machine"
        """,
        TRACKDSL_MODE="online",
    )
    code, out, err = program.finish()
    end_delivery(tmp_path / "spool-of-another-machine")
    assert code == 0, err
    first, forked, inherited, elsewhere = out.splitlines()
    assert first == forked == inherited == elsewhere


def test_ids_that_are_known_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The id of a run of plain MLflow is part of the context; for it, and for a run that goes nowhere, nobody waits."""
    with attach(json.dumps(TEXT | {"mlflow": ["abc", "0"]})) as run:
        assert (run.run_id, run.url) == ("abc", "http://127.0.0.1:5000/#/experiments/0/runs/abc")
    monkeypatch.setenv("TRACKDSL_MODE", "online")
    with capture_runs(), stage("s") as run, pytest.raises(RunNotReady, match="is not recorded"):
        _ = run.run_id


def test_a_run_of_plain_mlflow_outlives_who_adopted_it(start: StartProgram, tmp_path: Path) -> None:
    """A forked child says itself which run that is, where it enters such a context again or continues inside of it."""
    program = start(
        """
        import os
        from trackdsl import Context, attach, stage
        context = Context.from_text(os.environ["ASKED"])

        def fork(context):
            if (pid := os.fork()) == 0:
                with attach(context) if context else stage("child"), stage("inner"):
                    pass
                os._exit(0)
            os.waitpid(pid, 0)

        with attach(context), stage("parent"):
            pass
        fork(context)
        with attach(context), attach(context):
            fork(None)
        """,
        ASKED=json.dumps(TEXT | {"mlflow": ["abc", "0"]}),
    )
    code, _, err = program.finish()
    assert code == 0, err
    kinds = [[type(event).__name__ for event in read_all(journal)] for journal in sorted(journals(tmp_path / "spool"))]
    assert kinds == [["Adopt", "Open", "Close"]] * 2 + [["Adopt", "Open", "Open", "Close", "Close"]]


@pytest.mark.slow
def test_through_queues(start: StartProgram, sqlite_store: str) -> None:
    """A worker that was started outside of any run, and other programs, attach to what reaches them as object or text.

    Where a program names a store, its own runs go there, and those of the context to the store of the context.
    """
    program = start("""
        import multiprocessing, os, subprocess, sys
        from trackdsl import attach, capture, current_run, stage

        def work(queue):
            for context in iter(queue.get, None):
                with attach(context) as run:
                    assert run is current_run() and run.name == "sends"
                    run.log_metric("from afar", 1)
                    with stage("work"):
                        pass
                assert current_run() is None
            with stage("own"):
                pass

        OTHER = [
            "import sys, trackdsl",
            "with trackdsl.attach(sys.argv[1]), trackdsl.stage('program'):",
            "    with trackdsl.stage('inside'): pass",
            "with trackdsl.stage('elsewhere'): pass",
        ]

        if __name__ == "__main__":
            queue = multiprocessing.get_context("spawn").Queue()
            process = multiprocessing.get_context("spawn").Process(target=work, args=(queue,))
            process.start()
            with stage("sends"):
                for _ in range(2):
                    queue.put(capture())
                    queue.put(capture().to_text())
                text = capture().to_text()
            queue.put(None)
            process.join()
            assert process.exitcode == 0
            elsewhere = {**os.environ, "TRACKDSL_TRACKING_URI": "sqlite:///other.db"}
            subprocess.run([sys.executable, "-c", "\\n".join(OTHER), text], check=True, env=elsewhere)
    """)
    code, _, err = program.finish()
    assert (code, err) == (0, "")
    deliver()
    runs = {run.info.run_id: run for run in all_runs()}
    found = [
        (run.info.run_name, above and runs[above].info.run_name, run.info.status)
        for run in runs.values()
        for above in [run.data.tags.get("mlflow.parentRunId")]
    ]
    assert sorted(found, key=str) == [
        ("inside", "program", "FINISHED"),
        ("own", None, "FINISHED"),
        ("program", "sends", "FINISHED"),
        ("sends", None, "FINISHED"),
        *[("work", "sends", "FINISHED")] * 4,
    ]
    assert {run.info.run_name for run in runs.values() if run.data.metrics} == {"sends"}
    assert [run.info.run_name for run in all_runs(f"sqlite:///{Path.cwd()}/other.db")] == ["elsewhere"]


@pytest.mark.parametrize("text", ["nonsense", json.dumps(TEXT | {"spool": "a\0b", "host": os.uname().nodename})])
def test_a_variable_that_cannot_be_used(text: str, start: StartProgram, tmp_path: Path) -> None:
    """A program whose `TRACKDSL_CONTEXT` leads nowhere runs as without it, and says so once."""
    program = start("import trackdsl\nfor _ in '12':\n    with trackdsl.stage('s' + _): pass", TRACKDSL_CONTEXT=text)
    code, _, err = program.finish()
    assert (code, err.count("trackdsl cannot")) == (0, 1), err
    assert "Traceback" not in err
    assert [run.parent for run in in_journals(tmp_path / "spool").values()] == [None, None]


SECRETS = [
    ("http://me:hunter2@host:5000", "http://host:5000"),
    ("postgresql://me:hunter2@db/x", "postgresql://me@db/x"),
    ("https://host/x?api_key=hunter2", "https://host/x?api_key=***"),
    ("http://hunter2@host/x", "http://host/x"),
    ("mysql+pymysql://me:hunter2%40@db/x?charset=utf8", "mysql+pymysql://me@db/x?charset=utf8"),
    ("postgresql://db/x?user=me&password=hunter2", "postgresql://db/x?user=me&password=***"),
    ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
    ("databricks://profile", "databricks://profile"),
    ("http://[::1]:5000", "http://[::1]:5000"),
    ("http://[", "http://["),
    ("http://me:hunt\ner2@host", "http://host"),
    ("postgresql://me:hunter2@/x?host=db", "postgresql://me@/x?host=db"),
    ("mssql+pyodbc:///?odbc_connect=UID%3Dme%3BPWD%3Dhunter2", "mssql+pyodbc:///?odbc_connect=***"),
    ("mssql+pyodbc:///?a=%20&odbc_connect=PWD%3D%7Bhunter2%7D%3B", "mssql+pyodbc:///?a=%20&odbc_connect=***"),
]


@pytest.mark.parametrize(("uri", "shown"), SECRETS)
def test_what_is_shown_of_a_uri(uri: str, shown: str) -> None:
    """A tracking URI loses its credentials on the way, and nothing else."""
    assert public(uri) == shown


@given(
    password=st.from_regex(r"[A-Za-z0-9!$&'()*+,;=_~.%-]{4,20}", fullmatch=True),
    scheme=st.sampled_from(["http", "https", "postgresql", "mysql+pymysql"]),
)
def test_no_password_is_shown(password: str, scheme: str) -> None:
    """Whatever a password is made of, it is not in what is shown of a URI."""
    assert password not in public(f"{scheme}://u:{password}@h/d").removeprefix(scheme)


@pytest.mark.slow
def test_children_deliver_with_the_credentials(start: StartProgram, tmp_path: Path) -> None:
    """Credentials are in no text, environment or pickle, and a child on this machine has them all the same."""
    uris = [uri for uri, _ in SECRETS[:3]]
    program = start(
        """
        import multiprocessing, pickle, subprocess, sys, trackdsl
        from trackdsl import capture, stage

        CHILD = "import trackdsl\\nwith trackdsl.stage('program'):\\n    print(trackdsl.capture().to_text())"

        def work():
            with stage("work"):
                context = capture()
                print(context.to_text(), pickle.dumps(context))

        if __name__ == "__main__":
            for uri in sys.argv[1:]:
                trackdsl.configure(tracking_uri=uri)
                with stage("root"):
                    print(capture().to_text())
                    process = multiprocessing.get_context("spawn").Process(target=work)
                    process.start()
                    process.join()
                    subprocess.run([sys.executable, "-c", CHILD], check=True)
        """,
        *uris,
    )
    code, out, err = program.finish()
    assert (code, err) == (0, "")
    assert len(out.splitlines()) == 3 * len(uris)
    assert "hunter2" not in out
    found = [record.uri for journal in journals(tmp_path / "spool") if (record := read_origin(journal))]
    assert sorted(found) == sorted(uris * 3)


def test_a_store_that_looks_like_a_secret(start: StartProgram, tmp_path: Path) -> None:
    """A child finds its parent's store also where a secret of the parent's happens to be part of its address."""
    program = start("""
        import multiprocessing, trackdsl
        from trackdsl import stage
        def work():
            with stage("work"):
                pass
        if __name__ == "__main__":
            trackdsl.configure(tracking_uri="sqlite:////tmp/tr0ub4dor/mlflow.db")
            with stage("root", password="tr0ub4dor"):
                assert "tr0ub4dor" not in trackdsl.capture().to_text()
                process = multiprocessing.get_context("spawn").Process(target=work)
                process.start()
                process.join()
    """)
    code, _, err = program.finish()
    assert (code, err) == (0, "")
    origins = [read_origin(journal) for journal in journals(tmp_path / "spool")]
    assert [origin and origin.uri for origin in origins] == ["sqlite:////tmp/tr0ub4dor/mlflow.db"] * 2


@pytest.mark.slow
def test_settings_hold_in_children(start: StartProgram, tmp_path: Path) -> None:
    """What `configure` said in a program holds in its children: mode, names of secrets, the spool.

    What a child's own environment says comes first.
    """
    program = start(
        """
        import multiprocessing, os, subprocess, sys, trackdsl
        from concurrent.futures import ProcessPoolExecutor
        from trackdsl import settings, stage

        @stage("{who}")
        def work(who, lr, plain_token):
            print(settings.mode(), settings.strict())

        CHILD = "import trackdsl, os\\nwith trackdsl.stage('program', lr='hidden', plain_token='shown'): "
        CHILD += "print(trackdsl.settings.mode(), trackdsl.settings.strict())"

        if __name__ == "__main__":
            trackdsl.configure(mode="offline", secret_names=["lr"], public_names=["plain_token"], spool=sys.argv[1])
            with stage("root"):
                context = multiprocessing.get_context("spawn")
                process = context.Process(target=work, args=("process", "hidden", "shown"))
                process.start()
                process.join()
                with ProcessPoolExecutor(1, multiprocessing.get_context("forkserver")) as pool:
                    pool.submit(work, "pool", "hidden", "shown").result()
                subprocess.run([sys.executable, "-c", CHILD], check=True)
                strict = {**os.environ, "TRACKDSL_STRICT": "1", "TRACKDSL_SECRET_NAMES": "plain_token"}
                subprocess.run([sys.executable, "-c", CHILD.replace("program", "environment")], check=True, env=strict)
        """,
        str(tmp_path / "moved"),
        TRACKDSL_MODE="",
        TRACKDSL_SPOOL="",
        XDG_STATE_HOME=str(tmp_path / "state"),
    )
    code, out, err = program.finish()
    assert (code, err) == (0, "")
    assert out.splitlines() == ["offline False"] * 3 + ["offline True"]
    runs = in_journals(tmp_path / "moved")
    assert {name: run.parent and run.parent.name for name, run in runs.items()} == {
        "root": None,
        **dict.fromkeys(["process", "pool", "program", "environment"], "root"),
    }
    for name in ("process", "pool", "program"):
        assert (runs[name].params["lr"], runs[name].params["plain_token"]) == ("***", "shown"), name
    assert runs["environment"].params["lr"] == "hidden"
    assert not delivery_pids(tmp_path / "moved")


@pytest.mark.slow
def test_names_of_any_length(start: StartProgram, tmp_path: Path) -> None:
    """However long and foreign the names of runs are, a child can be started, and it is where it belongs."""
    program = start("""
        import contextlib, os, subprocess, sys, trackdsl
        CHILD = "import trackdsl\\nwith trackdsl.stage('child'): pass"
        environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        with contextlib.ExitStack() as stack:
            for _ in range(50):
                stack.enter_context(trackdsl.stage("\\u00e4\\U0001f600" * 2000))
            with trackdsl.stage("last"):
                subprocess.run([sys.executable, "-c", CHILD], check=True, env=environment)
    """)
    code, _, err = program.finish()
    assert (code, err) == (0, "")
    child = in_journals(tmp_path / "spool")["child"]
    assert child.parent is not None
    assert child.parent.name == "last"
