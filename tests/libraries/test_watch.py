"""`watch`: plain PyTorch loops record themselves, and are the same loops as before."""

from __future__ import annotations

import contextlib
import copy
import gc
import io
import pickle
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import trackdsl
from tests.conftest import all_runs, deliver, points
from trackdsl import OptionError, experiment, stage, watch
from trackdsl.testing import Captured, capture_runs

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from trackdsl.integrations import _torch_hooks  # noqa: E402

PATCHED = [
    (torch.autograd, "backward"), (torch.amp.GradScaler, "scale"), (torch.amp.GradScaler, "step"),
    (torch.optim.Optimizer, "zero_grad"),
]  # fmt: skip
ORIGINALS = [vars(owner)[name] for owner, name in PATCHED]
X, Y = torch.linspace(0, 1, 40).reshape(8, 5), torch.linspace(0, 1, 8).reshape(8, 1)


@pytest.fixture
def captured() -> Any:
    with capture_runs() as found:
        yield found


@pytest.fixture(autouse=True)
def nothing_left() -> Any:
    """Every test leaves PyTorch as it was."""
    yield
    assert untouched()


def untouched() -> bool:
    module: Any = sys.modules["torch.optim.optimizer"]
    hooks = module._global_optimizer_pre_hooks, module._global_optimizer_post_hooks
    same = all(vars(owner)[name] is known for (owner, name), known in zip(PATCHED, ORIGINALS, strict=True))
    return same and not any(hooks) and not _torch_hooks._watchers


def a_model(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.2), nn.ReLU(), nn.Linear(4, 1))


def sgd(model: Any, lr: float = 0.1) -> Any:
    return torch.optim.SGD(model.parameters(), lr=lr)


def step_by(model: Any, optimizer: Any, loss: Callable[[Any, Any], Any] = functional.mse_loss) -> float:
    """One step of a plain loop, as everybody writes it; the loss."""
    optimizer.zero_grad()
    found = loss(model(X), Y)
    found.backward()
    optimizer.step()
    return float(found.item())


def curve(run: Any, name: str = "loss") -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in run.metrics.get(name, [])]


OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
    "adam": lambda p: torch.optim.Adam(p, lr=torch.tensor(0.01), foreach=False, capturable=False),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01),
}
LOSSES: dict[str, Callable[[Any, Any], Any]] = {
    "module": nn.MSELoss(),
    "functional": functional.mse_loss,
    "arithmetic": lambda answer, wanted: (answer - wanted).abs().mean() + 1e-3 * answer.square().sum(),
    "one element": lambda answer, wanted: (answer - wanted).abs().mean(dim=0),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_loop_is_the_same_and_is_recorded(captured: Captured, make: Any, loss: Any) -> None:
    """Losses, parameters, gradients and random numbers are those without a watch, and the curves are the loop's own."""

    def train(watched: bool) -> tuple[Any, ...]:
        model = a_model()
        optimizer = make(model.parameters())
        with stage("t") if watched else contextlib.nullcontext():
            if watched:
                watch(model, optimizer, gradients=True)
            losses = [step_by(model, optimizer, loss) for _ in range(6)]
        state = [*model.state_dict().values(), *(p.grad for p in model.parameters()), torch.get_rng_state()]
        return losses, state, optimizer

    losses, state, _ = train(watched=False)
    again, watched, optimizer = train(watched=True)
    assert losses == again
    assert all(torch.equal(one, other) for one, other in zip(state, watched, strict=True))
    run = captured.one("t")
    assert curve(run) == list(enumerate(losses))
    rate = float(optimizer.param_groups[0]["lr"])
    assert curve(run, "lr") == [(step, rate) for step in range(6)]
    norm = torch.nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], 1e9)
    assert curve(run, "gradient_norm")[-1] == (5, pytest.approx(float(norm), rel=1e-5))
    assert run.params["optimizer.lr"] == rate
    assert run.params["optimizer.class"] == type(optimizer).__name__
    assert (run.params["model.parameters"], run.params["model.class"]) == (29, "Sequential")


def test_what_is_recorded_of_a_model(captured: Captured) -> None:
    """The architecture as text with the shapes of parameters, frozen ones marked; hyperparameters of every group."""
    model = a_model()
    model[0].weight.requires_grad_(False)
    groups = [{"params": model[3].parameters()}, {"params": [model[0].bias], "lr": 0.5, "name": "first"}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    with stage("t"):
        watch(model, optimizer)
        step_by(model, optimizer)
    run = captured.one("t")
    text = run.artifacts["model/architecture.txt"].read_text()
    assert text.startswith(repr(model))
    assert "0.weight: 4 x 5 float32, frozen" in text
    assert (run.params["model.parameters"], run.params["model.trainable_parameters"]) == (29, 9)
    assert (run.params["optimizer.momentum"], run.params["optimizer.groups.1.lr"]) == (0.9, 0.5)
    assert "optimizer.groups.1.momentum" not in run.params
    assert (curve(run, "lr/0"), curve(run, "lr/first")) == ([(0, 0.1)], [(0, 0.5)])


def test_learning_rates_and_every(captured: Captured) -> None:
    """The recorded rate of a step is the one that it was taken with; `every` records one step of that many."""
    model = a_model()
    optimizer = sgd(model, 1.0)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    with stage("t"), watch(model, optimizer, every=3, gradients=True):
        losses = []
        for _ in range(7):
            losses.append(step_by(model, optimizer))
            schedule.step()
    run = captured.one("t")
    assert curve(run, "lr") == [(0, 1.0), (3, 0.125), (6, 0.015625)]
    assert curve(run) == [(step, losses[step]) for step in (0, 3, 6)]
    assert [step for step, _ in curve(run, "gradient_norm")] == [0, 3, 6]


def test_accumulated_gradients(captured: Captured) -> None:
    """If several losses make one step, their sum is recorded; discarded ones are not."""
    model, sums = a_model(), []
    optimizer = sgd(model)
    with stage("t"):
        watch(model, optimizer)
        for _ in range(3):
            optimizer.zero_grad()
            parts = [functional.mse_loss(model(X[part::4]), Y[part::4]) / 4 for part in range(4)]
            for part in parts[:3]:
                part.backward()
            torch.autograd.backward(iter([parts[3]]))
            optimizer.step()
            sums.append(sum(part.item() for part in parts))
        functional.mse_loss(model(X), Y).backward()  # Of a batch that the loop leaves out.
        last = step_by(model, optimizer)
        optimizer.step()  # Uses the gradients of the previous step; there is no new loss.
    assert curve(captured.one("t")) == [*enumerate(sums), (3, last)]
    assert len(curve(captured.one("t"), "lr")) == 5


def test_what_is_no_loss(captured: Captured, caplog: pytest.LogCaptureFixture) -> None:
    """Gradients handed to `backward`, checkpoints that are computed again, and `torch.autograd.grad` are not losses."""
    model = a_model()
    optimizer = sgd(model)
    with stage("t"):
        watch(model, optimizer)
        answer = torch.utils.checkpoint.checkpoint(model, X.clone().requires_grad_(), use_reentrant=True)
        loss = torch.utils.checkpoint.checkpoint(functional.mse_loss, answer, Y, use_reentrant=True)
        torch.autograd.grad(functional.mse_loss(model(X), Y), list(model.parameters()))
        model(X).backward(torch.ones(8, 1))
        torch.autograd.backward(torch.autograd.graph.get_gradient_edge(model(X).sum()))
        loss.backward()
        optimizer.step()
    assert curve(captured.one("t")) == [(0, loss.item())]
    assert caplog.text == ""


def test_scaled_losses(captured: Captured) -> None:
    """Losses of a gradient scaler are recorded unscaled; a step that it skips is not recorded."""
    model, losses = a_model(), []
    optimizer = sgd(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with stage("t"):
        watch(model, optimizer, gradients=True)
        for broken in (False, True, False):
            model.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                loss = functional.mse_loss(model(X), Y)
            scaler.scale(loss * float("inf") if broken else loss).backward()
            scaler.step(optimizer)
            scaler.update()
            losses.append(loss.item())
    run = captured.one("t")
    assert curve(run) == [(0, losses[0]), (1, losses[2])]
    assert all(norm < 100 for _, norm in curve(run, "gradient_norm"))


def test_closures(captured: Captured) -> None:
    """For an optimizer that calls a closure many times, the first loss is recorded, that of the old parameters."""
    model, losses = nn.Linear(5, 1), []
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=5)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = functional.mse_loss(model(X), Y)
        loss.backward()
        return loss

    with stage("t"):
        watch(model, optimizer)
        losses += [optimizer.step(closure).item() for _ in range(3)]
    assert curve(captured.one("t")) == list(enumerate(losses))


def test_adversaries(captured: Captured) -> None:
    """Two models that train against each other have curves of their own, under the names given or their classes'."""

    class Critic(nn.Linear):
        pass

    maker, critic = nn.Linear(5, 5), Critic(5, 1)
    by_maker, by_critic, seen = sgd(maker), sgd(critic), []
    with stage("t"):
        watch(maker, by_maker, name="maker")
        watch(critic, by_critic)
        watch(critic, by_critic)
        for _ in range(3):
            by_critic.zero_grad()
            real, fake = -critic(X).mean(), critic(maker(X).detach()).mean()
            real.backward()
            fake.backward()
            by_critic.step()
            by_maker.zero_grad()
            loss = -critic(maker(X)).mean()
            loss.backward()
            by_maker.step()
            seen.append((real.item() + fake.item(), loss.item()))
    run = captured.one("t")
    assert curve(run, "maker/loss") == list(enumerate(loss for _, loss in seen))
    assert curve(run, "loss") == list(enumerate(loss for loss, _ in seen))
    assert curve(run, "Critic/loss") == curve(run, "loss")
    assert (run.params["maker.model.class"], run.params["model.class"]) == ("Linear", "Critic")
    assert {"maker/architecture.txt", "model/architecture.txt", "Critic/architecture.txt"} <= set(run.artifacts)


def test_one_loss_for_two_optimizers(captured: Captured) -> None:
    """Without a named optimizer, each one that steps parameters of the model is recorded; others are not."""
    model, other = a_model(), nn.Linear(5, 1)
    head, body, strange = (sgd(part) for part in (model[3], model[0], other))
    losses = []
    with stage("t"):
        watch(model)
        for _ in range(2):
            step_by(other, strange)
            loss = functional.mse_loss(model(X), Y)
            loss.backward()
            head.step()
            body.step()
            losses.append(loss.item())
    run = captured.one("t")
    assert curve(run) == curve(run, "optimizer2/loss") == list(enumerate(losses))
    assert curve(run, "optimizer2/lr") == [(0, 0.1), (1, 0.1)]
    assert run.params["optimizer2.class"] == "SGD"
    assert "optimizer3.class" not in run.params


def test_threads(captured: Captured) -> None:
    """Loops in threads land on the run of their own watch, losses and all, wherever the watch was opened."""
    barrier = threading.Barrier(2)
    losses: dict[int, list[float]] = {0: [], 1: []}

    def train(number: int, model: Any, optimizer: Any) -> None:
        for _ in range(20):
            barrier.wait()
            losses[number].append(step_by(model, optimizer))

    with experiment("e"), contextlib.ExitStack() as stack:
        threads = []
        for number in range(2):
            stack.enter_context(stage(f"t{number}"))
            model = nn.Linear(5, 1)
            optimizer = sgd(model)
            watch(model, optimizer)
            threads.append(threading.Thread(target=train, args=(number, model, optimizer)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for number in range(2):
        assert curve(captured.one(f"t{number}")) == list(enumerate(losses[number]))


def test_copies_and_files(captured: Captured) -> None:
    """Watched models and optimizers are copied, pickled and saved as usual, without any part of the watch."""
    model = a_model()
    optimizer = sgd(model)
    with stage("t"):
        before = [set(vars(model)), set(vars(optimizer))]
        watch(model, optimizer)
        step_by(model, optimizer)
        assert [set(vars(model)), set(vars(optimizer))] == before
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        for again in (torch.load(file, weights_only=False), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert not any(module._forward_hooks or module._backward_hooks for module in again.modules())
            step_by(again, sgd(again))
        for same in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
            assert same.state_dict() == optimizer.state_dict()
    assert len(curve(captured.one("t"))) == 1


def test_nothing_is_kept_alive(captured: Captured) -> None:
    """Model, optimizer, losses and graphs are freed when the program drops them, while the watch is open."""
    with stage("t"):
        model = a_model()
        optimizer = sgd(model)
        watch(model, optimizer, gradients=True)
        saved: list[weakref.ref[Any]] = []  # What the graph holds, and nothing else.

        class Holder:
            def __init__(self, tensor: Any) -> None:
                self.tensor = tensor

        def pack(tensor: Any) -> Holder:
            holder = Holder(tensor.detach())
            saved.append(weakref.ref(holder))
            return holder

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda holder: holder.tensor):
            loss = functional.mse_loss(model(X), Y)
        loss.backward(retain_graph=True)
        optimizer.step()
        assert all(ref() is not None for ref in saved)
        del loss
        assert all(ref() is None for ref in saved)
        gone = [weakref.ref(model), weakref.ref(optimizer), *map(weakref.ref, model.parameters())]
        del model, optimizer
        gc.collect()
        assert not any(ref() is not None for ref in gone)
        assert _torch_hooks._of == {}


def test_it_ends_with_the_run_or_before(captured: Captured) -> None:
    """After the end of its run, of its block, or of `close`, nothing is recorded and PyTorch is as it was."""
    model = a_model()
    optimizer = sgd(model)
    with pytest.raises(ZeroDivisionError), stage("run"):
        watch(model, optimizer)
        step_by(model, optimizer)
        functional.mse_loss(model(X), Y).backward()
        raise ZeroDivisionError
    assert untouched()
    with stage("outer"):
        with watch(model, optimizer):
            optimizer.step()  # By an optimizer that is not watched.
            with stage("inner"):
                step_by(model, optimizer)
            step_by(model, optimizer)
        assert untouched()
        step_by(model, optimizer)
        watching = watch(model, optimizer, name="again")
        watching.close()
        watching.close()
        step_by(model, optimizer)
    assert len(curve(captured.one("run"))) == 1
    assert len(curve(captured.one("outer"))) == 2
    assert captured.one("inner").metrics == {}
    assert trackdsl._runs.ending.before_end == {}


@pytest.mark.slow
def test_it_ends_with_a_session(captured: Captured) -> None:
    """Between `start_logging` and `stop_logging` a watch records on the session's run."""
    model = a_model()
    optimizer = sgd(model)
    trackdsl.start_logging("session")
    watch(model, optimizer)
    losses = [step_by(model, optimizer) for _ in range(2)]
    trackdsl.stop_logging()
    assert untouched()
    assert curve(captured.one("session")) == list(enumerate(losses))


def test_an_end_that_fails(captured: Captured, caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be done before the end of a run is reported, and the run ends."""
    with stage("t") as run:
        model = a_model()
        watch(model, sgd(model))
        trackdsl._runs.ending.before_end[run.key].insert(0, lambda: 1 / 0)
    assert "ZeroDivisionError" in caplog.text
    assert captured.one("t").status == "FINISHED"


def test_others_patch_too(captured: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that replaces `backward` meanwhile stays, and a watch below it does nothing once it has ended."""
    model, calls = a_model(), []
    optimizer = sgd(model)
    with stage("t"):
        watch(model, optimizer)
        ours = torch.autograd.backward
        theirs = lambda *args, **kwargs: calls.append(args) or ours(*args, **kwargs)  # noqa: E731
        torch.autograd.backward = theirs
        step_by(model, optimizer)
    try:
        assert torch.autograd.backward is theirs
        step_by(model, optimizer)
    finally:
        torch.autograd.backward = ORIGINALS[0]
    assert (len(calls), len(curve(captured.one("t")))) == (2, 1)


@pytest.mark.slow
def test_models_of_other_kinds(captured: Captured) -> None:
    """Compiled, wrapped and lazy models are described as what they are inside."""
    for name, model in (
        ("compiled", torch.compile(a_model(), backend="eager")),
        ("wrapped", nn.DataParallel(a_model())),
        ("lazy", nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.Linear(4, 1))),
    ):
        with stage(name):
            watch(model)
            with torch.no_grad():
                model(X)
            loss = step_by(model, sgd(model))
        run = captured.one(name)
        assert (run.params["model.class"], run.params["model.parameters"]) == ("Sequential", 29)
        assert curve(run) == [(0, loss)]
        assert run.artifacts["model/architecture.txt"].read_text().startswith("Sequential(")


@pytest.mark.slow
@pytest.mark.parametrize("whole", [False, True], ids=["the step", "the loop"])
def test_compiled_loops(captured: Captured, recwarn: pytest.WarningsRecorder, whole: bool) -> None:
    """A compiled loop compiles as without a watch, without breaks and warnings, and gives the same numbers."""

    def train(watched: bool) -> list[float]:
        torch._dynamo.reset()
        torch.manual_seed(0)
        model = nn.Linear(5, 1)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        compiled = torch.compile(lambda: optimizer.step(), backend="eager")

        def step() -> Any:
            optimizer.zero_grad()
            loss = functional.mse_loss(model(X), Y)
            loss.backward()
            optimizer.step() if whole else compiled()
            return loss

        one = torch.compile(step, backend="eager") if whole else step
        with stage("t"):
            if watched:
                watch(model, optimizer)
            return [one().item() for _ in range(4)]

    without = train(watched=False)
    warned = [str(warning.message) for warning in recwarn]
    assert train(watched=True) == without
    assert [str(warning.message) for warning in recwarn] in (warned, warned * 2)


def test_values_on_an_accelerator(captured: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values on an accelerator are read later and together, and have the times of their steps.

    There is no accelerator here: tensors of the CPU, kept as those of one would be, stand in.
    """
    monkeypatch.setattr(_torch_hooks, "value_of", lambda tensor: tensor.detach().clone())
    monkeypatch.setattr("trackdsl.integrations.torch._MAX_HELD", 4)
    model, read = a_model(), []
    monkeypatch.setattr("trackdsl.integrations.torch._MAX_AGE", 10**15)
    optimizer = torch.optim.Adam(model.parameters(), lr=torch.tensor(0.01), foreach=False)
    with stage("t"):
        watch(model, optimizer, gradients=True)
        losses = []
        for _ in range(10):
            losses.append(step_by(model, optimizer))
            read.append(len(curve(captured.one("t"))))
    run = captured.one("t")
    assert read == [0, 0, 0, 4, 4, 4, 4, 8, 8, 8]
    assert curve(run) == list(enumerate(losses))
    assert [rate for _, rate in curve(run, "lr")] == [pytest.approx(0.01)] * 10
    assert len(curve(run, "gradient_norm")) == 10
    assert len({point.time for point in run.metrics["loss"]}) == 10


def test_faults_stay_inside(captured: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that cannot be shown, a rate that is not a number, or a fault of ours never stops a loop."""

    class Resisting(nn.Linear):
        def extra_repr(self) -> str:
            raise RuntimeError("no")

    model = Resisting(5, 1)
    optimizer = sgd(model)
    with stage("shown"):
        watch(model, optimizer)
        step_by(model, optimizer)
    assert "no" in captured.one("shown").tags["trackdsl.omitted.watch"]
    model = a_model()
    optimizer = sgd(model)
    optimizer.param_groups[0]["lr"] = 0.1
    with stage("rate"):
        watch(model, optimizer)
        optimizer.param_groups[0]["name"] = "only"
        optimizer.register_step_post_hook(lambda *_: optimizer.param_groups[0].update(lr="much"))
        loss = step_by(model, optimizer)
        optimizer.param_groups[0]["lr"] = 0.1
    assert curve(captured.one("rate")) == [(0, loss)]
    assert "not a number" in captured.one("rate").tags["trackdsl.omitted.lr"]
    monkeypatch.setattr(_torch_hooks, "value_of", lambda tensor: 1 / 0)
    with stage("ours"):
        watch(model, optimizer)
        step_by(model, optimizer)
    assert curve(captured.one("ours")) == []


def test_a_step_that_fails(captured: Captured) -> None:
    """Exceptions of the loop itself pass, and later steps are recorded as usual."""
    model = a_model()
    optimizer = sgd(model)

    def closure() -> Any:
        functional.mse_loss(model(X), Y).backward()
        raise ZeroDivisionError

    with stage("t"):
        watch(model, optimizer)
        with pytest.raises(ZeroDivisionError):
            optimizer.step(closure)
        with pytest.raises(RuntimeError, match="does not require grad"):
            torch.tensor(1.0).backward()
        loss = step_by(model, optimizer)
        assert curve(captured.one("t"))[-1] == (0, loss)


def test_where_no_run_is(captured: Captured, caplog: pytest.LogCaptureFixture) -> None:
    """Outside any run a watch says so and does nothing; where trackdsl is disabled it does nothing."""
    model = a_model()
    optimizer = sgd(model)
    with watch(model, optimizer):
        step_by(model, optimizer)
    assert "watch at" in caplog.text
    with stage("idle"):
        watch(model)
    assert "no optimizer step was made" in caplog.text
    trackdsl.configure(mode="disabled")
    with stage("t"), watch(model, optimizer):
        step_by(model, optimizer)
    assert [run.name for run in captured.runs] == ["idle"]


def test_misuse() -> None:
    """Anything but a model, an optimizer and a number of steps is an error at once."""
    model = a_model()
    for arguments, expected in (((1,), "Module"), ((model, 1), "Optimizer"), ((model, None, 0), "every")):
        with pytest.raises(OptionError, match=expected):
            watch(*arguments[:2], every=arguments[2] if len(arguments) > 2 else 1)


def test_a_run_of_plain_mlflow(sqlite_store: str) -> None:
    """Inside `mlflow.start_run` a watch records on that run, and ends with it at the next step."""
    import mlflow

    mlflow.set_tracking_uri(sqlite_store)
    model = a_model()
    optimizer = sgd(model)
    with mlflow.start_run(run_name="plain"):
        watch(model, optimizer)
        losses = [step_by(model, optimizer) for _ in range(3)]
    step_by(model, optimizer)
    assert untouched()
    deliver()
    [run] = all_runs(sqlite_store)
    assert points(run, "loss") == list(enumerate(losses))
    assert run.data.params["model.class"] == "Sequential"
