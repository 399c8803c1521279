"""A compiled step: the passes of a few tokens through a twin of the model, whose layers are compiled kernels.

The twin has the model's own modules and shares its weights; in the place of each decoder layer, and of the
output layer, stands a kernel of `decodekit.kernels`, made from that very layer with its linear layers and
its attention in the form of `decodekit.streamed`. Prompts and passes of many tokens go through the model
itself, or through another twin where the CPU can't calculate in the model's type (`decodekit.wide`).
"""

import contextlib
import copy
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import causal_mask_function, sdpa_mask

from decodekit import streamed
from decodekit.caches import new_cache
from decodekit.errors import DecodekitWarning
from decodekit.kernels import NotCompilableError
from decodekit.regions import MOST_TOKENS, Form, Region, slots_for
from decodekit.streamed import StreamedLinear, is_plain_linear, is_streamable
from decodekit.tracing import plain_values
from decodekit.transformers_hooks import hooked_part
from decodekit.wide import WideLinear, has_arithmetic

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["CompiledStep", "ask_for", "asked_for", "compiled_step", "warn_without"]

_NAME = "decodekit_streamed"


def _mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    mask_function: Callable[..., Any] = causal_mask_function,
    attention_mask: Tensor | None = None,
    device: Any = "cpu",
    **kwargs: Any,
) -> Tensor:
    """bool [B, 1, n, W]: never left out, and without arithmetic where one token sees all."""
    if q_length == 1 and attention_mask is None and mask_function is causal_mask_function:
        return torch.ones(batch_size, 1, 1, kv_length, dtype=torch.bool, device=device)
    kwargs["allow_is_causal_skip"] = False
    mask = sdpa_mask(
        batch_size=batch_size,
        q_length=q_length,
        kv_length=kv_length,
        mask_function=mask_function,
        attention_mask=attention_mask,
        device=device,
        **kwargs,
    )
    assert mask is not None
    whole: Tensor = mask.expand(batch_size, -1, -1, -1).contiguous()
    return whole


AttentionInterface.register(_NAME, streamed.attention)
AttentionMaskInterface.register(_NAME, _mask)


_STEPS: "weakref.WeakKeyDictionary[PreTrainedModel, CompiledStep]" = weakref.WeakKeyDictionary()
_ASKED: "weakref.WeakSet[PreTrainedModel]" = weakref.WeakSet()


def ask_for(model: "PreTrainedModel") -> None:
    """From now on the calls of a model run as a compiled step, if they do not say otherwise."""
    _ASKED.add(model)


def asked_for(model: "PreTrainedModel") -> bool:
    """Whether `ask_for` was called for a model."""
    return model in _ASKED


def warn_without(model: "PreTrainedModel", reason: object) -> None:
    """Tell the caller that ``compile=True`` has no effect, and why."""
    message = f"compile=True has no effect on {type(model).__name__}: {reason}"
    warnings.warn(message, DecodekitWarning, stacklevel=3)


def compiled_step(model: "PreTrainedModel") -> "CompiledStep":
    """The compiled step of a model; made once, and kept as long as the model is and stays what it is.

    Raises:
        NotCompilableError: there is none for this model; the message says why.
    """
    _check(model)
    made_of = _made_of(model)
    step = _STEPS.get(model)
    if step is None or step.made_of != made_of:  # kernels take modules and weights for what they were
        step = _STEPS[model] = CompiledStep(*_kernel_twin(model), _wide_twin(model), made_of)
    return step


def _made_of(model: "PreTrainedModel") -> list[Any]:
    """What tells a model from the same one when it has been changed, but for the values of its weights."""
    found: list[Any] = [model.config.to_dict(), model.config._attn_implementation]
    for part in model.modules():  # one walk, as every call asks
        found.append((type(part), type(part).forward, plain_values(part)))
        for tensor in (*part._parameters.values(), *part._buffers.values()):
            found.append(tensor if tensor is None else (id(tensor), tensor.dtype, tensor.device))
    return found


class CompiledStep:
    """Runs the passes of a model in its place: kernels those of at most ``most`` tokens after a prompt."""

    most = MOST_TOKENS

    def __init__(
        self,
        twin: "PreTrainedModel",
        forms: Sequence[Form],
        wide: "PreTrainedModel | None" = None,
        made_of: Sequence[Any] = (),
    ) -> None:
        """Take what runs the passes.

        Args:
            twin: with kernels, for passes after a prompt.
            forms: of its kernels.
            wide: for prompts and large passes; left out, the model runs them itself.
            made_of: what tells the weights from others.
        """
        self._twin, self._forms, self._wide, self.made_of = twin, forms, wide, made_of
        self._ready: set[tuple[int, int]] = set()

    def for_pass(self, batch: int, count: int, *, prompt: bool) -> "Callable[..., Any] | None":
        """What runs a pass over [B, n] tokens; None is the model itself."""
        return self._wide if prompt or batch * count > self.most else self

    def filled(self, batch: int, count: int) -> int:
        """How many tokens a row a pass over [B, n] may have and need no larger kernel."""
        return slots_for(batch * count) // batch if batch * count <= self.most else count

    def __call__(self, **inputs: Any) -> Any:
        """The model's output, of a pass of a few tokens after a prompt."""
        try:
            return self._twin(**inputs)
        finally:
            for form in self._forms:
                form.forget()

    def prepare(self, model: "PreTrainedModel", batch: int, count: int = 1) -> None:
        """Compile what passes over [B, n] tokens need, where it is not on disk; say so on stderr.

        Passes of fewer tokens then use the same kernels, as rows leave.

        Args:
            model: the twin's.
            batch: B.
            count: n.

        Raises:
            NotCompilableError: it can't be compiled; the message says why.
        """
        if (batch, count) in self._ready:
            return
        cache = new_cache(model, "growing", None)
        tokens = torch.zeros(batch, count, dtype=torch.long)
        places = torch.arange(1, count + 1).expand(batch, -1)
        try:
            with torch.no_grad(), self._exactly():
                prompt = self.for_pass(batch, 1, prompt=True)
                (model if prompt is None else prompt)(
                    input_ids=tokens[:, :1], past_key_values=cache, use_cache=True
                )
                self(input_ids=tokens, position_ids=places, past_key_values=cache, use_cache=True)
        except NotCompilableError:
            raise
        except Exception as error:  # a model may do anything with what stands in for its parts
            message = f"a pass through its twin fails ({type(error).__name__}: {error})"
            raise NotCompilableError(message) from error
        self._ready.add((batch, count))

    @contextlib.contextmanager
    def _exactly(self) -> Iterator[None]:
        for form in self._forms:
            form.exact = True
        try:
            yield
        finally:
            for form in self._forms:
                form.exact = False


def _twin(model: "PreTrainedModel") -> "PreTrainedModel":
    """A model of modules of its own, which share their weights with another."""
    shared = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    try:
        return copy.deepcopy(model, shared)
    except Exception as error:
        message = f"its modules can't be copied ({type(error).__name__}: {error})"
        raise NotCompilableError(message) from error


def _kernel_twin(model: "PreTrainedModel") -> "tuple[PreTrainedModel, list[Form]]":
    """A twin with kernels in the place of its layers."""
    _check_parts(model)
    twin = _twin(model)
    twin.config._attn_implementation = _NAME
    kind = type(model).__name__
    forms: dict[str, Form] = {}
    layers = _layers(twin)
    for number, layer in enumerate(layers):
        _replace(layer, is_streamable, StreamedLinear)
        form = Form(layer, model.config, f"the decoder layer of {kind}")
        own = next((n for x in layer.modules() if isinstance(n := vars(x).get("layer_idx"), int)), number)
        layers[number] = Region(layer, forms.setdefault(form.key, form), own)
    head = twin.get_output_embeddings()
    if head is not None and is_streamable(head):
        streaming = StreamedLinear(head)
        form = Form(streaming, None, f"the output layer of {kind}")
        twin.set_output_embeddings(Region(streaming, forms.setdefault(form.key, form)))
    return twin, list(forms.values())


def _wide_twin(model: "PreTrainedModel") -> "PreTrainedModel | None":
    """A twin with wide linear layers, where the model's own are slow for want of arithmetic in its type."""
    if has_arithmetic(model.device, model.dtype):
        return None
    twin = _twin(model)
    _replace(twin, is_plain_linear, WideLinear)
    return twin


def _check(model: "PreTrainedModel") -> None:
    """Refuse by name what is known not to work and may change between two calls."""
    hooked = hooked_part(model)
    replaced = _replaced(model)
    reasons = {
        "it is an encoder-decoder model": model.config.is_encoder_decoder,
        "its parts are on several devices": len(set(getattr(model, "hf_device_map", {}).values())) > 1,
        "its attention can't be replaced": not model._supports_attention_backend,
        "it is in training mode": model.training,
        f"{hooked} has hooks, which kernels do not call": hooked is not None,
        f"the forward of {replaced} was replaced, and kernels run that of its class": replaced is not None,
    }
    for reason, found in reasons.items():
        if found:
            raise NotCompilableError(reason)


def _replaced(model: "PreTrainedModel") -> str | None:
    """The name of a module with a forward of its own."""
    if not any("forward" in vars(part) for part in model.modules()):
        return None
    return next(name or "the model" for name, part in model.named_modules() if "forward" in vars(part))


def _check_parts(model: "PreTrainedModel") -> None:
    """Refuse by name modules and weights that can't be streamed."""
    for name, module in model.get_decoder().named_modules():
        linear = isinstance(module, nn.Linear) or hasattr(module, "in_features")
        if linear and not is_streamable(module):
            kind = type(getattr(module, "weight", module)).__name__
            message = (
                f"{name} is a {type(module).__name__} with a {kind}, which is not read as a plain weight"
            )
            raise NotCompilableError(message)
    for name, parameter in model.get_decoder().named_parameters():
        if parameter.dim() > 2:
            message = f"{name} has {parameter.dim()} dimensions, as experts and convolutions have"
            raise NotCompilableError(message)


def _layers(twin: "PreTrainedModel") -> nn.ModuleList:
    count = twin.config.get_text_config(decoder=True).num_hidden_layers
    lists = [
        module
        for module in twin.get_decoder().children()
        if isinstance(module, nn.ModuleList) and len(module) == count
    ]
    if len(lists) != 1:
        message = f"its {count} decoder layers are not found in one list"
        raise NotCompilableError(message)
    return lists[0]


def _replace(
    module: nn.Module, chosen: Callable[[nn.Module], bool], kind: Callable[[nn.Module], nn.Module]
) -> None:
    """Put a module of a kind in the place of each chosen one within a module."""
    for part in list(module.modules()):
        for name, child in list(part.named_children()):
            if chosen(child):
                setattr(part, name, kind(child))
