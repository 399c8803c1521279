"""What `custom_generate` may be, and what is said when it is something else."""

import sys
import textwrap

import decodekit as dk
import pytest
import torch
from decodekit.custom_generate import read_custom
from decodekit.testing.models import tiny_llama
from decodekit.testing.strategy_toys import Bytes

ARGUMENTS = {"max_new_tokens": 6, "eos_token_id": None, "pad_token_id": 0}
IDS = {"input_ids": torch.tensor([[3, 4, 5]]), "attention_mask": torch.ones(1, 3, dtype=torch.long)}
STRATEGY = """
    import attrs
    import decodekit as dk

    @attrs.frozen
    class Rank(dk.Strategy):
        NAME = "rank"
        rank: int = dk.param(0, range="[0, 9]", help="Which.")

        def step(self, batch):
            p = batch.dist(batch.logits())
            batch.commit(p.scores.argsort(descending=True, stable=True)[:, self.rank], p)
"""
FUNCTION = """
    import torch

    def generate(model, input_ids, **more):
        return torch.cat([input_ids, input_ids[:, :1]], dim=1)
"""


@pytest.fixture(scope="module")
def model():
    return tiny_llama(dtype=torch.float32)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """``module(name, source)`` writes a module that can be imported."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name, source):
        path = tmp_path.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))
        monkeypatch.delitem(sys.modules, name, raising=False)

    yield write
    for name in [
        name for name, item in sys.modules.items() if str(tmp_path) in str(getattr(item, "__file__", ""))
    ]:
        del sys.modules[name]


@pytest.mark.parametrize("spec", ["house.room", "house.room:Rank"])
def test_a_module_with_a_strategy_is_that_strategy(model, module, spec):
    module("house.room", STRATEGY)
    plain = dk.generate(model, **IDS, **ARGUMENTS)
    assert torch.equal(dk.generate(model, **IDS, **ARGUMENTS, custom_generate=spec), plain)
    other = dk.generate(model, **IDS, **ARGUMENTS, custom_generate=spec, rank=1)
    assert not torch.equal(other, plain)


def test_a_class_and_an_instance_are_strategies(module):
    module("house_of_one", STRATEGY)
    cls = read_custom("house_of_one")
    assert read_custom(cls) is cls
    assert read_custom(cls(rank=2)).rank == 2


@pytest.mark.parametrize("spec", ["plain_loop", "plain_loop:generate"])
def test_a_module_with_a_function_is_that_function(model, module, spec):
    module("plain_loop", FUNCTION)
    assert dk.generate(model, **IDS, **ARGUMENTS, custom_generate=spec).tolist() == [[3, 4, 5, 3]]


def test_a_strategy_that_is_only_imported_is_not_meant(module):
    module("gives", STRATEGY)
    module("takes", "from gives import Rank")
    with pytest.raises(
        dk.ParameterError, match=r"module defines neither a decodekit\.Strategy nor a function"
    ):
        read_custom("takes")


def test_two_things_to_mean_are_named(module):
    module("two", STRATEGY + FUNCTION)
    with pytest.raises(
        dk.ParameterError, match="several things to decode with: name one, two:Rank, two:generate"
    ):
        read_custom("two")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("no_such_module", "there is no module 'no_such_module', and no folder of that name"),
        ("json.no_such", "there is no module 'json.no_such'"),
        ("beam", "'beam' is an installed strategy: pass strategy='beam'"),
        ("beem", "Did you mean 'beam'"),
        ("json:no_dumps", "json has no 'no_dumps'. Did you mean 'dumps'"),
        ("not a module", "there is no module 'not a module'"),
        ("/no/such/folder", "there is no such folder"),
        ("dola", "pass custom_generate='transformers-community/dola' with trust_remote_code=True"),
    ],
)
def test_what_is_not_there_is_named(spec, message):
    with pytest.raises(dk.UnknownNameError) as caught:
        read_custom(spec)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [("import no_such_library", "No module named 'no_such_library'"), ("1 / 0", "ZeroDivisionError")],
)
def test_a_module_that_fails_says_why(module, source, message):
    module("fails", source)
    with pytest.raises(dk.PluginError, match=f"module fails can't be imported: .*{message}"):
        read_custom("fails")


def test_a_strategy_that_breaks_the_contract_is_refused(module):
    module("nameless", "import decodekit\nclass A(decodekit.Strategy):\n    NAME = 'a'")
    with pytest.raises(dk.PluginError, match="must define step"):
        read_custom("nameless")


@pytest.mark.parametrize("value", [3, ["beam"], int])
def test_anything_else_is_refused(value):
    with pytest.raises((dk.ParameterError, dk.PluginError)):
        read_custom(value)


def test_a_strategy_beside_it_is_a_contradiction():
    with pytest.raises(dk.ParameterError, match="custom_generate and strategy contradict each other"):
        read_custom(print, strategy="greedy")


METHODS = ["contrastive-search", "dola", "group-beam-search", "constrained-beam-search", "sink_cache"]


@pytest.mark.parametrize("method", METHODS)
def test_the_methods_that_moved_out_are_known_by_name_and_hub_id(method):
    with pytest.raises(dk.TrustError, match=r"trust_remote_code=True.* transformers moved") as caught:
        read_custom(f"transformers-community/{method}")
    with pytest.raises(dk.UnknownNameError) as named:
        read_custom(method.replace("-", "_"))
    advice = str(named.value).partition("\n")[2]
    assert advice in str(caught.value)


def test_an_installed_strategy_that_does_the_same_is_named(monkeypatch):
    class Registry:
        def entries(self, kind):
            return {"dola": []}

    monkeypatch.setattr("decodekit.moved.registry", Registry)
    with pytest.raises(
        dk.TrustError, match="pass strategy='dola', which is installed; or pass custom_generate="
    ):
        read_custom("transformers-community/dola")


def test_a_configuration_that_asks_for_one_says_how_to_get_it(model):
    with pytest.raises(
        dk.UnsupportedArgumentError, match="custom_generate='transformers-community/constrained"
    ):
        dk.generate(model, **IDS, **ARGUMENTS, num_beams=2, force_words_ids=[[[3]]])


def test_a_strategy_of_a_module_is_streamed_and_a_loop_is_not(model, module):
    module("streamed", STRATEGY)
    module("unstreamed", FUNCTION)
    arguments = {**ARGUMENTS, "skip_special_tokens": False}
    ids = dk.generate(model, **IDS, **ARGUMENTS, custom_generate="streamed", rank=1)[0, 3:].tolist()
    events = dk.stream(model, Bytes(), IDS["input_ids"], **arguments, custom_generate="streamed", rank=1)
    assert [event.token for event in events if isinstance(event, dk.TokenEvent)] == ids
    with pytest.raises(dk.UnsupportedArgumentError, match=r"'unstreamed' has a loop of its own"):
        dk.stream(model, Bytes(), IDS["input_ids"], **arguments, custom_generate="unstreamed")


@pytest.mark.parametrize("spec", ["a/folder", "transformers-community/dola"])
def test_nobody_is_asked_to_trust_a_folder_that_can_not_be_streamed(model, tmp_path, monkeypatch, spec):
    code = tmp_path / "a" / "folder" / "custom_generate" / "generate.py"
    code.parent.mkdir(parents=True)
    code.write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(dk.UnsupportedArgumentError, match=f"'{spec}' has a loop of its own") as caught:
        dk.stream(model, Bytes(), IDS["input_ids"], custom_generate=spec)
    assert "trust" not in str(caught.value)
