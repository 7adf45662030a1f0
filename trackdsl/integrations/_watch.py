"""`watch`: a plain PyTorch loop records itself, with no change to the loop. PyTorch is imported when it is called."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from trackdsl.integrations.torch import Watch


def watch(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    *,
    name: str | None = None,
    every: int = 1,
    gradients: bool = False,
) -> Watch:
    """Record the training of a PyTorch model on the current run, in a loop that stays as it is.

    At once: the architecture as `model/architecture.txt`, the number of parameters, and the optimizer with its
    hyperparameters. With each step of the optimizer: `loss`, the sum of what `backward` was called on since the step
    before, and `lr`, the learning rate (`lr/0`, `lr/1`, … where there are several groups of parameters). The steps are
    counted from 0. It ends with the run, or with `with watch(...)`, or with `close()`.

    Losses of a gradient scaler are recorded as they were before scaling. Where one `backward` serves several
    optimizers, each has its loss. On an accelerator values are read some steps later and together, so that no step
    waits for them. Not seen are gradients from `torch.autograd.grad`, steps that no `torch.optim.Optimizer` takes, and
    those inside a function that is compiled: compile the model, and not its loop.

    Args:
        model: what is trained. Neither it nor the optimizer is changed or kept alive.
        optimizer: what trains it; by default each optimizer that steps with parameters of the model.
        name: put before the names of all that is recorded, as in `generator/loss`, for runs that train several
            models. By default the second model of a run is named after its class.
        every: record one step of so many.
        gradients: record `gradient_norm` too, the norm of all gradients before the step.

    Returns:
        the watch, to be closed earlier than the run.

    Raises:
        OptionError: no module, no optimizer, or `every` below 1.

    Example:
        >>> watch(model, optimizer)  # doctest: +SKIP
        >>> for x, y in batches:  # doctest: +SKIP
        ...     optimizer.zero_grad()
        ...     loss = criterion(model(x), y)
        ...     loss.backward()
        ...     optimizer.step()
    """
    from trackdsl.integrations.torch import begin

    return begin(model, optimizer, name, every, gradients)
