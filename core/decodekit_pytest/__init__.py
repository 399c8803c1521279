"""The pytest plugin of decodekit's conformance kit; it imports decodekit only when it is asked for something.

``pytest --decodekit my_package:SoftCap`` makes one test of each property that applies, and every
conformance failure is reported as its explanation instead of a traceback.
"""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from decodekit.testing import Result

__all__ = ["PropertyCollector", "PropertyItem"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--decodekit`` and ``--decodekit-profile``."""
    group = parser.getgroup("decodekit", "conformance of decodekit plugins")
    group.addoption(
        "--decodekit",
        action="append",
        default=[],
        metavar="MODULE:CLASS",
        help="check a processor, a strategy or another plugin: one test for each property; repeatable",
    )
    group.addoption(
        "--decodekit-profile",
        choices=("fast", "default", "thorough"),
        default=None,
        help="how many inputs each check tries: 10, 40 or 400 (default: DECODEKIT_TEST_PROFILE)",
    )


class PropertyItem(pytest.Item):
    """One property of one plugin."""

    def __init__(self, *, run: Any, **keywords: Any) -> None:
        super().__init__(**keywords)
        self._run = run

    def runtest(self) -> None:
        """Run the check; a declared exception is an expected failure."""
        result: Result = self._run()
        if result.outcome == "excepted":
            pytest.xfail(result.detail.partition("\n")[0])

    def reportinfo(self) -> tuple[Any, int | None, str]:
        """Where it stands in a report."""
        return self.path, None, self.name


class PropertyCollector(pytest.Collector):
    """The properties of one plugin, ``MODULE:CLASS`` or an installed name."""

    def __init__(self, *, profile: str | None, **keywords: Any) -> None:
        super().__init__(**keywords)
        self._profile = profile

    def collect(self) -> Iterator[pytest.Item]:
        """One item for each property that applies."""
        from decodekit.testing import plugin_checks, plugins_of

        for plugin in plugins_of(self.name):
            for key, run in plugin_checks(plugin, profile=self._profile):
                yield PropertyItem.from_parent(self, name=f"{plugin.NAME} {key}", run=run)


def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Add the properties of the plugins that ``--decodekit`` names."""
    from_options = config.getoption("--decodekit")
    if not from_options:
        return
    from decodekit.errors import DecodekitError

    sys.path.insert(0, str(config.invocation_params.dir))  # as `python -m` does; the plugin may lie there
    profile = config.getoption("--decodekit-profile")
    for name in from_options:
        try:
            items.extend(PropertyCollector.from_parent(session, name=name, profile=profile).collect())
        except DecodekitError as error:
            message = f"--decodekit {name}: {error}"
            raise pytest.UsageError(message) from error


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Iterator[None]:
    """Show a conformance failure as its explanation, and not as a traceback through the kit."""
    outcome = yield
    error = call.excinfo.value if call.excinfo is not None else None
    if type(error).__name__ == "ConformanceError" and hasattr(error, "report"):
        outcome.get_result().longrepr = str(error)  # type: ignore[attr-defined]  # a pluggy result
