"""`watch`: records a PyTorch training loop without changes to the loop. The call imports PyTorch."""

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
    """Record the training of a PyTorch model on the current run. The training loop does not change.

    The call records the architecture as `model/architecture.txt`, the number of parameters, and the optimizer with its
    hyperparameters. Each step of the optimizer records `loss`, the sum of the losses that `backward` was called on
    since the last step, and `lr`, the learning rate (`lr/0`, `lr/1`, … if there are several parameter groups). Steps
    count from 0. The watch ends with the run, at the end of `with watch(...)`, or with `close()`.

    With a gradient scaler, losses are recorded without the scaling. If several optimizers use the gradients of one
    `backward`, the loss is recorded for each of them. Values on an accelerator are read together, some steps later, so
    that no step waits for them. `watch` does not see gradients from `torch.autograd.grad`, steps without a
    `torch.optim.Optimizer`, and steps inside a compiled function: compile the model, not the loop.

    Args:
        model: the model. `watch` does not change it or the optimizer, and does not keep them alive.
        optimizer: its optimizer; by default every optimizer that has parameters of the model.
        name: a prefix for all names, as in `generator/loss`, for runs that train several models. By default the second
            model of a run has its class as the prefix.
        every: record every n-th step.
        gradients: also record `gradient_norm`, the norm of all gradients before the step.

    Returns:
        the watch; close it to end it before the run ends.

    Raises:
        OptionError: `model` is not a module, `optimizer` is not an optimizer, or `every` is below 1.

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
