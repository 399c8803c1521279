"""What a call may leave behind of itself: looked at before and after."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from decodekit.load import tensors_of
from decodekit.testing.strategy_toys import InterruptionError

__all__ = ["counted_forwards", "differences", "raising_forward", "trace"]


def trace(model: Any) -> dict[str, Any]:
    """All that must not change: of the model, and of the process."""
    found: dict[str, Any] = {
        "torch's random state": torch.get_rng_state().tolist(),
        "torch's grad mode": torch.is_grad_enabled(),
        "torch's default dtype": torch.get_default_dtype(),
        "config": model.config.to_dict(),
        "generation_config": model.generation_config.to_dict(),
    }
    for name, module in model.named_modules():
        where = f" of {name or 'the model'}"
        found["train mode" + where] = module.training
        found["attributes" + where] = sorted(vars(module))
        found["hooks" + where] = {
            key: list(value.items()) for key, value in vars(module).items() if key.endswith("_hooks")
        }
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        found[f"parameter {name}"] = (
            tensor.dtype,
            tensor.requires_grad,
            [part.tolist() for part in tensors_of(tensor)],
        )
    return found


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The names of what has changed."""
    return sorted(key for key in before | after if before.get(key) != after.get(key))


@contextlib.contextmanager
def counted_forwards(model: torch.nn.Module) -> Iterator[list[None]]:
    """A list that grows by one with each forward pass; nothing is left on the model."""
    forwards: list[None] = []
    handle = model.register_forward_pre_hook(lambda *_: forwards.append(None))
    try:
        yield forwards
    finally:
        handle.remove()


@contextlib.contextmanager
def raising_forward(model: torch.nn.Module, after: int | None) -> Iterator[None]:
    """The model raises `InterruptionError` instead of its next forward pass but ``after``; None is never."""
    with counted_forwards(model) as forwards:

        def fail(*_: Any) -> None:
            if after is not None and len(forwards) > after:
                message = f"planted after {after} forward passes"
                raise InterruptionError(message)

        handle = model.register_forward_pre_hook(fail)
        try:
            yield
        finally:
            handle.remove()
