"""What the backends share that replace linear layers themselves."""

import difflib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from decodekit import CapabilityError, ParameterError
from torch import nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["check_groups", "check_skipped", "is_skipped", "replace_linears"]


def is_skipped(name: str, skip_modules: tuple[str, ...]) -> bool:
    """Whether a module, by its dotted name, is one of those to skip or inside one."""
    return any(f".{part}." in f".{name}." for part in skip_modules)


def check_skipped(model: "PreTrainedModel", skip_modules: tuple[str, ...]) -> None:
    """Refuse a name of which the model has no module: it would be quantized in silence.

    Raises:
        ParameterError: names it, and what it may be a slip of.
    """
    names = [name for name, _ in model.named_modules() if name]
    parts = {part for name in names for part in name.split(".") if not part.isdigit()}
    for asked in skip_modules:
        if any(is_skipped(name, (asked,)) for name in names):
            continue
        near = " or ".join(map(repr, difflib.get_close_matches(asked, [*sorted(parts), *names])))
        message = (
            f"skip_modules names {asked!r}, and {type(model).__name__} has no such module: "
            + (f"did you mean {near}? Give" if near else "give")
            + " whole parts of a module's dotted name, such as 'o_proj' or 'layers.0'"
        )
        raise ParameterError(message)


def replace_linears(
    model: "PreTrainedModel",
    make: Callable[[nn.Linear], nn.Module],
    skip_modules: tuple[str, ...],
    output_layer: bool,
) -> "PreTrainedModel":
    """Put ``make(layer)`` in the place of the linear layers, one by one.

    Raises:
        CapabilityError: there are none.
        ParameterError: the model has no module of a name in ``skip_modules``.
    """
    found = list(_linears(model, skip_modules, output_layer))
    if not found:
        message = f"{type(model).__name__} has no linear layers to quantize: take quant='none'"
        raise CapabilityError(message)
    for name, layer in found:
        if layer is model.get_output_embeddings():
            model.set_output_embeddings(make(layer))
            continue
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, make(layer))
    return model


def check_groups(
    model: "PreTrainedModel", skip_modules: tuple[str, ...], output_layer: bool, size: int
) -> None:
    """Refuse a layer whose inputs ``size`` does not divide.

    Raises:
        CapabilityError: names the layer.
        ParameterError: the model has no module of a name in ``skip_modules``.
    """
    for name, layer in _linears(model, skip_modules, output_layer):
        if layer.in_features % size:
            message = (
                f"group_size={size // 2} needs inputs in multiples of {size} (two groups), and {name} has "
                f"{layer.in_features}: take a smaller group_size, or name the module in skip_modules"
            )
            raise CapabilityError(message)


def _linears(
    model: "PreTrainedModel", skip_modules: tuple[str, ...], output_layer: bool
) -> Iterator[tuple[str, nn.Linear]]:
    check_skipped(model, skip_modules)
    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        skipped = is_skipped(name, skip_modules)
        if type(module) is nn.Linear and not skipped and (output_layer or module is not head):
            yield name, module
