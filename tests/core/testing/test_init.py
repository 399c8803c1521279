import importlib
import importlib.util

import decodekit.testing
import pytest
from decodekit import MissingLibraryError


def test_without_hypothesis_the_message_has_the_install_line(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingLibraryError, match=r"hypothesis: pip install 'decodekit-core\[testing\]'"):
        importlib.reload(decodekit.testing)
