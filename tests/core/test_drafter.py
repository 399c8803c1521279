"""The contract of a drafter: what a subclass gets without writing it, and what it must write."""

import decodekit as dk
import pytest
from decodekit.contract import check_class


def test_it_needs_no_further_model_and_binds_to_itself():
    drafter = dk.Drafter()
    assert drafter.models == drafter.foreign_models == {}
    assert drafter.bind(None, dk.CallContext(vocab_size=3)) is drafter
    assert not drafter.LAWS.reports_q


def test_a_subclass_must_draft():
    with pytest.raises(TypeError, match="must define draft"):
        dk.Drafter().draft(None, [], None)
    with pytest.raises(dk.PluginError, match="must define draft"):
        check_class("drafters", type("Idle", (dk.Drafter,), {"NAME": "idle"}))
