"""Plugins that are really installed: dist-info folders and modules on sys.path."""

import sys
import textwrap

import pytest

OURS = "decodekit-processors,decodekit-strategies,decodekit-quant-backends"
GOOD = """
    import attrs
    from decodekit import Processor, hookimpl, param

    @attrs.frozen
    class {cls}(Processor):
        \"\"\"Keep what is mild.

        The rest of the text.
        \"\"\"
        NAME = "{name}"
        heat: float = param(1.0, range="(0, inf)", neutral=1.0, help="How mild.")

        def __call__(self, logits, history):
            return logits / self.heat

    @hookimpl
    def register_processors():
        return [{cls}]
"""


@pytest.fixture
def install_plugin(tmp_path, monkeypatch):
    """Install a distribution of one module: ``install_plugin("kit-foo", source)``; ours are kept out."""
    monkeypatch.setenv("DECODEKIT_DISABLED_PLUGINS", OURS)
    monkeypatch.delenv("DECODEKIT_STRICT_PLUGINS", raising=False)
    monkeypatch.setenv("DECODEKIT_CONFIG_DIR", str(tmp_path / "settings"))
    monkeypatch.syspath_prepend(tmp_path)

    def install(distribution, source, entry_points="plug = {module}", version="1.2"):
        module = distribution.replace("-", "_")
        info = tmp_path / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text("[decodekit]\n" + entry_points.format(module=module) + "\n")
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(source))
        monkeypatch.delitem(sys.modules, module, raising=False)

    return install


@pytest.fixture
def mild():
    """The source of a plugin module with one processor; ``mild(name, class name)``."""
    return lambda name="mild", cls="Mild": GOOD.format(name=name, cls=cls)
