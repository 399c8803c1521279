"""The first layers of the target itself, with its head."""

import copy
import functools
import types
from collections.abc import Sequence
from typing import Any, ClassVar

import attrs
from decodekit import Batch, CallContext, Draft, Drafter, DrafterLaws, ParameterError, Pick, param
from torch import nn

from decodekit_strategies.drafters._autoregressive import decode_drafts

__all__ = ["EarlyExit"]

_BOUND = {"forward", "_old_forward"}
"""What accelerate binds to a module that it puts a hook on."""


@attrs.frozen
class EarlyExit(Drafter):
    """The first layers of the model and its head draft, from the cache that these layers have already.

    Models are rarely trained for it; LayerSkip's are. From others an exit drafts poorly.

    Source: Elhoushi et al. (2024), arXiv 2404.16710, section 4.3.
    Range: layers in [1, number of layers).
    Shape: one forward of the first layers a drafted token, for all rows at once; no second prompt, no second
        cache, no weights of its own.
    Law: reports q. The model stays as it is: the exit is a view of it.
    Raises: ParameterError when the model has no such layer, no list of layers, or a
        forward that was replaced (by anything but accelerate's hooks).
    """

    NAME: ClassVar[str] = "early_exit"
    LAWS: ClassVar[DrafterLaws] = DrafterLaws(reports_q=True)

    layers: int = param(range="[1, inf)", help="How many of the first layers draft; fewer than there are.")
    confidence_threshold: float = param(
        0.4, range="[0, 1]", help="A draft ends with a token that the exit gives less than this."
    )
    _view: Any = attrs.field(default=None, repr=False, eq=False)

    def bind(self, model: Any, context: CallContext) -> "EarlyExit":
        """Make the view."""
        return attrs.evolve(self, view=first_layers(model, self.layers))

    def draft(self, batch: Batch, lengths: Sequence[int], pick: Pick) -> Draft:
        """Decode a few tokens beside the target's cache; the first step has nothing to begin with."""
        branch = batch.branch(self._view, self.layers)
        if branch is None:
            return Draft([[] for _ in batch.rows])
        return decode_drafts(batch, lengths, pick, self.confidence_threshold, branch.logits)


def first_layers(model: Any, count: int) -> Any:
    """A view of the model that ends after ``count`` layers; it shares every parameter and changes none.

    Raises:
        ParameterError: there are not so many, or no list of them, or a forward was replaced.
    """
    if model.config.is_encoder_decoder:
        message = f"early exit takes decoder-only models, and {type(model).__name__} has an encoder"
        raise ParameterError(message)
    decoder: Any = model.get_decoder() if hasattr(model, "get_decoder") else None
    layers = getattr(decoder, "layers", None)
    if not isinstance(layers, nn.ModuleList):
        message = f"early exit needs a list of layers in the model, and {type(model).__name__} shows none"
        raise ParameterError(message)
    if not 1 <= count < len(layers):
        message = (
            f"layers={count} is not allowed: {type(model).__name__} has {len(layers)} layers, of which an "
            f"early exit takes 1 to {len(layers) - 1}"
        )
        raise ParameterError(message)
    config = copy.deepcopy(decoder.config)
    config.num_hidden_layers = count
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:count]
    short = _copy(decoder, layers=layers[:count])
    short.config = config
    return _replaced(model, decoder, short)


def _replaced(module: Any, old: Any, new: Any) -> Any:
    """A view of the module in which one of the modules inside is another."""
    if module is old:
        return new
    for name, child in module.named_children():
        if any(inner is old for inner in child.modules()):
            return _copy(module, **{name: _replaced(child, old, new)})
    return module


def _copy(module: Any, **children: Any) -> Any:
    view = copy.copy(module)
    view._modules = {**module._modules, **children}
    for name in _BOUND & vars(module).keys():
        setattr(view, name, _rebound(vars(module)[name], module, view))
    return view


def _rebound(forward: Any, old: Any, new: Any) -> Any:
    """The forward of one module as that of another.

    Raises:
        ParameterError: nobody knows how, as the module's forward was replaced by something else.
    """
    if isinstance(forward, types.MethodType) and forward.__self__ is old:
        return types.MethodType(forward.__func__, new)
    if isinstance(forward, functools.partial) and forward.args == (old,):
        return functools.update_wrapper(functools.partial(forward.func, new), type(new).forward)
    message = (
        f"early exit takes no model whose forward was replaced, as that of this {type(old).__name__} was, "
        "since it would run all layers: take another drafter, or the model as it was loaded"
    )
    raise ParameterError(message)
