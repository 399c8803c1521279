"""The conformance kit for a plugin of any kind: a report, tests, and counter-examples replayed."""

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from decodekit.contract import BASES, Kind, check_class, kind_of
from decodekit.custom_generate import load_object
from decodekit.errors import ParameterError, UnknownNameError, nearest
from decodekit.registry import registry
from decodekit.testing.check import Check
from decodekit.testing.drafter_checks import DRAFTER_CHECKS, check_drafter, drafter_checks
from decodekit.testing.drafter_subject import DrafterSubject
from decodekit.testing.processor_checks import PROCESSOR_CHECKS, check_processor, processor_checks
from decodekit.testing.processor_subject import ProcessorSubject
from decodekit.testing.quant_checks import QUANT_CHECKS, check_quant_backend, quant_checks
from decodekit.testing.quant_subject import QuantSubject
from decodekit.testing.report import Outcome, Report, Result
from decodekit.testing.reproduce import replay_values
from decodekit.testing.strategy_checks import STRATEGY_CHECKS, check_strategy, strategy_checks
from decodekit.testing.strategy_subject import StrategySubject

if TYPE_CHECKING:
    import pytest

__all__ = ["all_checks", "check_plugin", "parametrize", "plugin_checks", "plugins_of", "replay"]

_Report = Callable[..., Report]
_Checks = Callable[..., list[tuple[str, Callable[[], Result]]]]
_KITS: dict[Kind, tuple[_Report, _Checks]] = {
    "processors": (check_processor, processor_checks),
    "strategies": (check_strategy, strategy_checks),
    "drafters": (check_drafter, drafter_checks),
    "quant_backends": (check_quant_backend, quant_checks),
}
_SUBJECTS: dict[Kind, Callable[..., Any]] = {
    "processors": ProcessorSubject,
    "strategies": StrategySubject,
    "drafters": DrafterSubject,
    "quant_backends": QuantSubject,
}


def all_checks() -> dict[Kind, tuple[Check[Any], ...]]:
    """Every property of the kit, by kind, in the order of the numbers."""
    return {
        "processors": PROCESSOR_CHECKS,
        "strategies": STRATEGY_CHECKS,
        "drafters": DRAFTER_CHECKS,
        "quant_backends": QUANT_CHECKS,
    }


def check_plugin(plugin: Any, **options: Any) -> Report:
    """Check a plugin of any kind; ``options`` are those of the kind's own function.

    Args:
        plugin: a class or an instance of `Processor`, `Strategy`, or another kind that the kit knows.
        **options: ``examples``, ``profile``, ``exceptions``, and ``oracle`` for a processor.

    Returns:
        The report; see `check_processor` and `check_strategy`.

    Raises:
        ConformanceError: a property is broken.
        ParameterError: it is of no kind that the kit knows, or an option is not allowed.
    """
    return _kit(plugin)[0](plugin, **options)


def plugin_checks(plugin: Any, **options: Any) -> list[tuple[str, Callable[[], Result]]]:
    """The checks that apply to a plugin of any kind, as ``(id, function)``; each raises on its own."""
    return _kit(plugin)[1](plugin, **options)


def parametrize(plugin: Any, **options: Any) -> "pytest.MarkDecorator":
    """Make one test of each property that applies, for a test function with the argument ``check``.

    ::

        @decodekit.testing.parametrize(SoftCap)
        def test_conformance(check):
            check()

    A declared exception is shown as an expected failure, with its reason.

    Args:
        plugin: a class or an instance.
        **options: as for `check_plugin`.
    """
    import pytest

    def quiet(run: Callable[[], Result]) -> Callable[[], None]:
        def check() -> None:
            result = run()
            if result.outcome is Outcome.EXCEPTED:
                pytest.xfail(result.detail.partition("\n")[0])

        return check

    pairs = plugin_checks(plugin, **options)
    return pytest.mark.parametrize("check", [pytest.param(quiet(run), id=key) for key, run in pairs])


def plugins_of(spec: str) -> list[Any]:
    """The plugin classes (or instances) that a text names.

    Args:
        spec: ``"package.module:name"``, ``"package.module"`` for every plugin class that it defines, or the
            name of an installed plugin.

    Raises:
        UnknownNameError: there is nothing of that name.
        PluginError: the module can't be imported, or a class breaks the contract of its kind.
        ParameterError: what it names is no plugin.
        DuplicateNameError: several installed plugins have the name.
    """
    installed = [entry for kind in BASES for entry in registry().entries(kind).get(spec, [])]
    if ":" not in spec and installed:
        return [registry().entry(installed[0].kind, spec).cls]
    try:
        found = load_object(spec)
    except UnknownNameError as error:
        known = [name for kind in BASES for name in registry().entries(kind)]
        lost = "".join(f"\nNot loaded: {failure}" for failure in registry().failures)
        message = f"{spec!r} is no installed plugin, and {error}.{nearest(spec, known)}{lost}"
        raise UnknownNameError(message) from error
    if isinstance(found, ModuleType):
        classes = [item for item in vars(found).values() if isinstance(item, type) and kind_of(item)]
        plugins = [cls for cls in classes if cls.__module__ == found.__name__ and vars(cls).get("NAME")]
    else:
        plugins = [found]
    for plugin in plugins:
        cls = plugin if isinstance(plugin, type) else type(plugin)
        kind = kind_of(cls)
        if kind is None:
            raise _unknown(plugin)
        check_class(kind, cls)
    if not plugins:
        message = f"{spec!r} defines no plugin: no class with a NAME derives from a base class of decodekit"
        raise ParameterError(message)
    return plugins


def replay(key: str, plugin: Any, values: Sequence[Any], **options: Any) -> None:
    """Run one check on the values that it drew when it failed; reports print the call.

    Args:
        key: id and title of the check, e.g. ``"P8 no resurrection"``.
        plugin: the class or instance.
        values: what the check draws, in its order.
        **options: ``oracle`` and ``accepts`` of a processor, ``target`` and ``tokenizer`` of a drafter.

    Raises:
        BrokenPromiseError: the property is still broken.
        UnknownNameError: there is no such check.
    """
    fixed = None if isinstance(plugin, type) else plugin
    cls = plugin if isinstance(plugin, type) else type(plugin)
    kind = kind_of(cls)
    if kind is None:
        raise _unknown(plugin)
    replay_values(all_checks()[kind], _SUBJECTS[kind](cls, fixed, **options), key, values)


def _kit(plugin: Any) -> tuple[_Report, _Checks]:
    kind = kind_of(plugin if isinstance(plugin, type) else type(plugin))
    if kind not in _KITS:
        raise _unknown(plugin)
    return _KITS[kind]


def _unknown(plugin: Any) -> ParameterError:
    bases = " or ".join(f"decodekit.{BASES[kind].__name__}" for kind in _KITS)
    return ParameterError(f"{plugin!r} can't be checked: it must be a class or an instance of {bases}")
