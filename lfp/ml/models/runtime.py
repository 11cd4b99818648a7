"""Checkpoints written whole, memory that is full, copies from a card, and the faster of two matrix products."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lfp.errors import ModelError

_Made = TypeVar("_Made")


def save(state: Any, file: Path) -> None:
    """Replace the content of `file` by `state` in one step."""
    partial = file.with_name(f".{file.name}.partial")
    torch.save(state, partial)
    partial.replace(file)


def load(file: Path | None) -> Any | None:
    """Load what `save` wrote, to the CPU and without unpickling code; None where there is no file."""
    if file is None or not file.is_file():
        return None
    return torch.load(file, map_location="cpu", weights_only=True)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception says that memory, of the machine or of a GPU, is full."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


@dataclass(eq=False)
class Batches:
    """How many texts a pass takes: `size` at first, half of it, once, where memory is full."""

    size: int
    what: str
    """What is computed, for the error."""
    key: str
    """Of the config that sets the size."""
    device: torch.device
    set_to: int | None = None
    """The size before it was halved."""

    def split(self, span: range, work: Callable[[range], _Made]) -> Iterator[_Made]:
        """Yield what `work` makes of the rows of a span, batch after batch. Raises ModelError."""
        start = span.start
        while start < span.stop:
            rows = range(start, min(start + self.size, span.stop))
            try:
                made = work(rows)
            except (RuntimeError, MemoryError) as error:
                self._halve(error)
                continue
            yield made
            start = rows.stop

    def _halve(self, error: RuntimeError | MemoryError) -> None:
        if not is_out_of_memory(error):
            raise error
        if self.set_to is not None or self.size == 1:
            raise ModelError(
                f"{self.what}: out of memory on {self.device} with {self.size} texts per batch; lower {self.key} (now"
                f" {self.set_to or self.size}) or model.context"
            ) from error
        self.size, self.set_to = self.size // 2, self.size


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Copy values to a device; from the host to a CUDA card through pinned memory, so that nothing waits for it."""
    if device.type == "cuda" and values.device.type == "cpu":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


def to_host(values: Tensor) -> Tensor:
    """Copy values to the host; from a CUDA card into pinned memory and without waiting, as `Queued.wait` does."""
    if values.device.type != "cuda":
        return values.detach().cpu()
    pinned = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return pinned.copy_(values.detach(), non_blocking=True)


class Queued:
    """What CUDA cards have been given to do until now; nothing where the devices are no such cards."""

    def __init__(self, devices: Iterable[torch.device]) -> None:
        self._events = [torch.cuda.current_stream(device).record_event() for device in devices if device.type == "cuda"]

    def wait(self) -> None:
        """Wait until it is done, so that copies to the host can be read."""
        for event in self._events:
            event.synchronize()


def finish_later(started: Iterable[Callable[[], _Made]], *, ahead: int) -> Iterator[_Made]:
    """Finish each item once `ahead` later ones are started, so that a card has work while the host has too."""
    waiting = deque[Callable[[], _Made]]()
    for finish in started:
        waiting.append(finish)
        if len(waiting) > ahead:
            yield waiting.popleft()()
    while waiting:
        yield waiting.popleft()()


def affine(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return `inputs @ weight.T + bias`: [..., d_in], [width, d_in] and [width] give [..., width].

    Without gradients on a CPU oneDNN computes the float32 product: it uses the full vector width on processors of every
    maker, where the library behind `F.linear` takes two to three times as long on some (docs/BENCHMARKS.md). The two
    differ by rounding alone. Within torch's autocast the product is of its type, and the result float32 all the same.
    """
    device_type = inputs.device.type
    if torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type):
        return F.linear(inputs, weight, bias).float()
    plain = torch.is_grad_enabled() or device_type != "cpu" or inputs.dtype != torch.float32
    if plain or not inputs.numel() or not torch.backends.mkldnn.is_available():
        return F.linear(inputs.contiguous(), weight, bias)  # it may copy the weight for each row of a strided input
    product: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")
    return product


class FastLinear(TorchFunctionMode):
    """Context in which every linear layer computes its product with `affine`, in the thread that entered it."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Replace `F.linear`; torch calls this for each of its functions."""
        return (affine if func is F.linear else func)(*args, **(kwargs or {}))
