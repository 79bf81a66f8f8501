"""What a logged step measures, on its way from the device to the watchers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from ssl_dc.devices import Readback, in_float64
from ssl_dc.gating.cost import Trace
from ssl_dc.objectives.statistics import effective_rank_of, gram_matrix, mean_std

LARGEST_LATE = 1024
"""Side of the largest matrix whose eigenvalues the CPU finds while a GPU goes on. For a larger one the CPU would take so
long that the GPU finds them when they are read, and is waited for."""


class Measured:
    """The numbers of a step. The device is not waited for until they are read.

    Args:
        step: Number of the step, from 1.
        budget: The budget of its gated views.
        numbers: The loss and its terms by name, tensors of one element, and what is known already.
        control: What the budget control tells, likewise.
        embedding: The embedding of the global batch, (N, D).
        traces: The gates' decisions for each gated view.
        late: Whether the numbers are read later, and the device goes on until then.
    """

    def __init__(
        self,
        *,
        step: int,
        budget: float,
        numbers: Mapping[str, Tensor | float],
        control: Mapping[str, Tensor | float],
        embedding: Tensor,
        traces: Sequence[Trace],
        late: bool,
    ) -> None:
        self.step, self.budget = step, budget
        self._numbers = _Numbers({**numbers, "embedding_std": mean_std(embedding)})
        self._gated = _Numbers({str(view): trace.ratio().mean() for view, trace in enumerate(traces)})
        self._control = _Numbers(control if traces else {})
        entries = [mask.detach().flatten() for trace in traces for mask in trace.masks.values()]
        self._open = _Numbers({"any": torch.cat(entries).any(), "all": torch.cat(entries).all()} if entries else {})
        self._size = _Numbers({"embedding": embedding.float().square().mean().sqrt()})
        self._rank = _rank_later(embedding) if late else _rank_now(embedding)

    def values(self) -> dict[str, float]:
        """The metrics by name, as they are logged."""
        values = {**self._numbers.read(), "effective_rank": self._rank()}
        if ratios := list(self._gated.read().values()):
            values["cost_ratio"] = sum(ratios) / len(ratios)
        return {**values, **self._control.read()}

    def embedding_size(self) -> float:
        """Root mean square of the embedding."""
        return self._size.read()["embedding"]

    def openness(self) -> tuple[bool, bool] | None:
        """Whether any entry of any mask is open, and whether all of them are; None if no view is gated."""
        read = self._open.read()
        return (bool(read["any"]), bool(read["all"])) if read else None


class _Numbers:
    """Named numbers, of which a device may have some.

    Args:
        values: Tensors of one element, or numbers.
    """

    def __init__(self, values: Mapping[str, Tensor | float]) -> None:
        self._names = list(values)
        self._known = {name: value for name, value in values.items() if not isinstance(value, Tensor)}
        tensors = [in_float64(value.detach()).reshape(1) for value in values.values() if isinstance(value, Tensor)]
        device = next((tensor.device for tensor in tensors if tensor.device.type != "cpu"), torch.device("cpu"))
        self._read = Readback(torch.cat([tensor.to(device) for tensor in tensors])) if tensors else None

    def read(self) -> dict[str, float]:
        """The numbers by name, in their order. This waits for the device."""
        read = iter(self._read.read() if self._read is not None else ())
        return {name: self._known[name] if name in self._known else next(read) for name in self._names}


def _rank_now(embedding: Tensor) -> Callable[[], float]:
    rank = effective_rank_of(gram_matrix(embedding))
    return rank.item


def _rank_later(embedding: Tensor) -> Callable[[], float]:
    """Have a thread find the effective rank on the CPU, for which a GPU would be waited for.

    Nothing fails before it is read, as it would where the embedding is not finite: the step is checked for that first.
    """
    gram = gram_matrix(embedding)
    if len(gram) > LARGEST_LATE:
        return lambda: effective_rank_of(gram).item()
    copied = Readback(gram)
    pool = ThreadPoolExecutor(1)
    rank = pool.submit(lambda: effective_rank_of(copied.tensor()).item())
    pool.shutdown(wait=False)
    return rank.result
