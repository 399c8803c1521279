"""Puts kernels in the place of a model's modules: which one runs a pass, and what it is traced from."""

import inspect
from operator import is_
from pathlib import Path
from typing import Any, cast

import attrs
from torch import Tensor, nn

from decodekit.growing import GrowingLayer
from decodekit.kernels import Kernel, announced, compile_kernel, digest, file_digest
from decodekit.streamed import StreamedLinear
from decodekit.tracing import Call, Shape, Traced, example, is_plain, plain_values, state_of

__all__ = ["MOST_TOKENS", "Form", "Region", "slots_for"]

MOST_TOKENS = 16
"""The most tokens of a pass that is faster as sums than as products of matrices."""

_MANY = 8
"""Kernels of so many tokens take longer to compile."""
_VERSIONED = {"torch", "transformers", "decodekit"}
"""Packages whose versions, or the modules that matter, are in the name of every kernel."""


def slots_for(tokens: int) -> int:
    """The places of the smallest kernel for so many tokens: a power of two."""
    return 1 << (tokens - 1).bit_length()


class Form:
    """All modules that run the same code, and the kernels for them."""

    def __init__(self, module: nn.Module, config: Any, title: str) -> None:
        """Describe the form of a module.

        Args:
            module: with `StreamedLinear` in the place of its linear layers.
            config: of the model, if the module reads it.
            title: what it is called while it compiles.
        """
        self._module = module
        self._title = title
        self.key = digest(_identity(module, config))
        self._chosen: dict[Any, Kernel] = {}
        self._loaded: dict[Path, Kernel] = {}
        self._last: Call | None = None
        self.exact = False
        """Whether a kernel for more tokens than a pass has will not do, so that one is compiled for it."""

    def call(
        self, values: tuple[Any, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> "tuple[Call, Kernel]":
        """Take arguments apart, and choose the kernel; neighbouring layers mostly get the same arguments.

        Args:
            values: of both, in their order; the first is the hidden states [B, n, D].
            args: positional ones.
            kwargs: by name.

        Raises:
            NotCompilableError: there is no kernel, and none can be made.
        """
        call = self._last
        if call is None or call.size != values[0].shape[:2] or not all(map(is_, call.values, values[1:])):
            call = self._last = Call.of(values, args, kwargs)
        if call.kernel is None:
            kernel = self._chosen.get(call.key)
            if kernel is None:
                kernel = self._chosen[call.key] = self._choose(values[0], call)
            call.kernel = kernel
        return call, call.kernel

    def forget(self) -> None:
        """Let the arguments of the last pass go."""
        self._last = None

    def _choose(self, hidden: Tensor, call: "Call") -> Kernel:
        batch, count = call.size
        least = slots_for(batch * count)
        shapes = [Shape(slots, batch > 1, count > 1) for slots in (1, 2, 4, 8, MOST_TOKENS) if slots >= least]
        kinds = [str(hidden.dtype), *call.kinds]
        paths = [Kernel.path([self.key, attrs.astuple(shape), kinds]) for shape in shapes]
        fitting = paths[:1] if self.exact else paths
        found = next((number for number, path in enumerate(fitting) if path.exists()), None)
        if found is None:
            found = 0
            self._compile(hidden, call, shapes[0], paths[0])
        path = paths[found]
        if path not in self._loaded:
            self._loaded[path] = Kernel.load(path)
        return self._loaded[path]

    def _compile(self, hidden: Tensor, call: "Call", shape: Shape, path: Path) -> None:
        for part in self._module.modules():
            if isinstance(part, StreamedLinear):
                part.slots = shape.slots
        body = Traced(self._module, call)
        inputs, dynamic = example(shape, list(state_of(self._module).values()), hidden, call)
        passes = f"passes of {shape.slots} token{'s' * (shape.slots > 1)}"
        time = "about 15 seconds" if shape.slots < _MANY else "a minute, of 4-bit weights three"
        with announced(f"{self._title} for {passes}: {time}, once on this machine"):
            compile_kernel(body, inputs, dynamic, path)


class Region(nn.Module):
    """A kernel in the place of a module of a model; its weights stay where they are."""

    def __init__(self, module: nn.Module, form: Form, number: int | None = None) -> None:
        """Stand in for a module.

        Args:
            module: of that form.
            form: knows the kernels.
            number: which layer of the cache is the module's, if it has one.
        """
        super().__init__()
        self._state = list(state_of(module).values())
        self._form = form
        self._number = number

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module would return."""
        values = (*args, *kwargs.values())
        call, kernel = self._form.call(values, args, kwargs)
        inputs = [*self._state, values[0].contiguous(), *call.tensors]
        if call.cache is None:
            outputs = kernel.run(inputs)
        else:
            layer = cast("GrowingLayer", call.cache.layers[self._number])
            inputs += layer.reserve(call.size[1])
            outputs = kernel.run(inputs)
            layer.advance(call.size[1])
        return outputs[0] if kernel.pattern == _ONE else _as_tuple(outputs, kernel.pattern)

    __call__ = forward  # nobody hangs hooks on a twin, and looking for them takes time


_ONE = ("tensor",)


def _as_tuple(outputs: list[Tensor], pattern: tuple[str, ...]) -> tuple[Any, ...]:
    rest = iter(outputs)
    return tuple(next(rest) if item == "tensor" else None for item in pattern[1:])


def _identity(module: nn.Module, config: Any) -> list[Any]:
    """All that the code which a module runs depends on, beside its inputs."""
    values = {} if config is None else config.to_dict()
    plain = {name: value for name, value in values.items() if not name.startswith("_")}
    parts = []
    for name, part in module.named_modules():
        values = {key: value for key, value in plain_values(part).items() if key != "layer_idx"}
        parts.append([name, *_code(type(part)), values])
    tensors = [[name, list(x.shape), str(x.dtype)] for name, x in state_of(module).items()]
    return [plain, parts, tensors]


def _code(kind: Any) -> list[str]:
    """What tells the forward of a class from that of another one of its name, or of a changed one."""
    code = getattr(inspect.unwrap(kind.forward), "__code__", None)
    own = ""
    if code is not None:
        own = digest([code.co_code.hex(), code.co_names, [item for item in code.co_consts if is_plain(item)]])
    try:
        source = inspect.getsourcefile(kind)
    except (TypeError, OSError):  # a class of a notebook
        source = None
    files = _files(kind, source) if source else []
    return [kind.__module__, kind.__qualname__, own, *map(file_digest, files)]


def _files(kind: Any, source: str) -> list[str]:
    """The file of a class, and those beside it in its package, as it may call a helper of one."""
    package = kind.__module__.rpartition(".")[0]
    if not package or package.partition(".")[0] in _VERSIONED:
        return [source]
    beside = (path for path in Path(source).parent.glob("*.py") if path.is_file())  # editors leave odd links
    return [source, *sorted(map(str, beside))]
