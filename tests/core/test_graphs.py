"""The compiled step of an accelerator, tried on a CPU with what stands in for the accelerator alone."""

import functools
import warnings

import decodekit as dk
import pytest
import torch
from decodekit import graphs, late
from decodekit.call import Options, prepare
from decodekit.testing.models import tiny_llama
from transformers import CompileConfig, StaticCache

IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])


@pytest.fixture
def model(monkeypatch):
    """A model whose device is said to be an accelerator."""
    monkeypatch.setattr(graphs, "are_for", lambda _: True)
    model = tiny_llama(32)
    monkeypatch.setattr(model, "_valid_auto_compile_criteria", _is_static)
    return model


def _is_static(kwargs, config):
    return type(kwargs["past_key_values"]) is StaticCache


def with_forward(monkeypatch, model, forward):
    """Let a function be the compiled forward, and note the shapes that it is given."""
    shapes = []

    def compiled(**inputs):
        shapes.append(tuple(inputs["input_ids"].shape))
        return forward(**inputs)

    monkeypatch.setattr(model, "get_compiled_call", lambda _: compiled)
    return shapes


CALLS = {
    "greedy": {},
    "ragged": {"attention_mask": torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])},
    "sampled": {"do_sample": True, "top_k": 5, "seed": 7},
    "beams": {"num_beams": 3, "num_return_sequences": 2},
    "rows that leave": {"eos_token_id": list(range(10)), "pad_token_id": 0},
    "drafts": {"prompt_lookup_num_tokens": 2},
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_graphs_change_no_token(model, monkeypatch, call):
    plain = dk.generate(model, IDS, max_new_tokens=9, **call)
    shapes = with_forward(monkeypatch, model, model)
    ours = dk.generate(model, IDS, max_new_tokens=9, **call, compile=True)
    assert torch.equal(ours, plain)
    assert len(shapes) > graphs._PASSES or "prompt_lookup_num_tokens" in call
    assert all(count == 1 for _, count in shapes)


def test_the_next_pass_begins_before_tokens_are_read(model, monkeypatch):
    """Late stop checks: at every step the pass is queued first, and a row's end costs at most one in vain."""
    told = []
    with_forward(monkeypatch, model, lambda **inputs: told.append("pass") or model(**inputs))
    dk.generate(model, IDS, max_new_tokens=6, compile=True)  # tries the graph
    read = late.OnItsWay.tolist
    monkeypatch.setattr(late.OnItsWay, "tolist", lambda self: told.append("read") or read(self))
    told.clear()
    dk.generate(model, IDS, max_new_tokens=6, compile=True)
    assert told == ["pass", "read"] * 5  # the prompt gives the first token, and the sixth is fed to nobody


@pytest.mark.parametrize("ends", [[], list(range(10)), list(range(32))], ids=["length", "some", "at once"])
@pytest.mark.parametrize("sampling", [{}, {"do_sample": True, "seed": 3}, {"do_sample": True}])
def test_late_stops_are_trimmed_exactly(model, monkeypatch, ends, sampling):
    call = {"max_new_tokens": 9, "eos_token_id": ends or None, "pad_token_id": 0, **sampling}
    torch.manual_seed(1)
    plain, wanted = told_of(model, **call)
    with_forward(monkeypatch, model, model)
    torch.manual_seed(1)
    ours, passes = told_of(model, **call, compile=True)
    assert ours == plain
    assert passes - wanted == (max(map(len, plain[-1])) < 9)


def told_of(model, **call):
    """The tokens of all rows at each step, and how often the model ran."""
    options = Options(seed=call.pop("seed", None), compile=call.pop("compile", None))
    ready = prepare(model, IDS, None, call, options)
    told = [[[*row.tokens] for row in ready.rows] for _ in ready.steps()]
    assert ready.batch.late == bool(options.compile)
    return told, ready.batch.stats()["forward_passes"]


def test_what_is_wrong_is_told_although_the_next_pass_has_begun(model, monkeypatch):
    class Junk(dk.Strategy):
        NAME = "junk"
        ADMITS = True

        def step(self, batch):
            p = batch.dist(batch.logits())
            batch.commit(p.argmax() + 1000, p)

    with_forward(monkeypatch, model, model)
    with pytest.raises(dk.PluginError, match=r"commit got 10\d\d as a token"):
        dk.generate(model, IDS, max_new_tokens=4, strategy=Junk(), compile=True)
    with torch.no_grad():
        model.lm_head.weight[3] = torch.nan
    with pytest.raises(dk.NonFiniteLogitsError, match="hold NaN"):
        dk.generate(model, IDS, max_new_tokens=4, compile=True)


def test_torch_compiles_a_pass_over_such_a_cache(model):
    """All of it but the accelerator: torch traces the passes, which then run as they are."""
    config = CompileConfig(backend="eager", mode=None)
    plain = dk.generate(model, IDS, max_new_tokens=6)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    ours = dk.generate(model, IDS, max_new_tokens=6, compile=True, compile_config=config)
    assert torch.equal(ours, plain)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    torch._dynamo.reset()


def test_what_a_graph_overwrites_was_copied(model, monkeypatch):
    place = []

    def in_place(**inputs):
        output = model(**inputs)
        if not place or place[0].shape != output.logits.shape:
            place[:] = [torch.empty_like(output.logits)]
        output.logits = place[0].copy_(output.logits)
        return output

    asked = {"max_new_tokens": 6, "return_dict_in_generate": True, "output_logits": True}
    plain = dk.generate(model, IDS, **asked)
    with_forward(monkeypatch, model, in_place)
    ours = dk.generate(model, IDS, **asked, compile=True)
    for one, other in zip(ours.logits, plain.logits, strict=True):
        torch.testing.assert_close(one, other)


def test_a_graph_is_tried_once_for_calls_of_about_one_length(model, monkeypatch, capfd):
    shapes = with_forward(monkeypatch, model, model)
    for new_tokens in (6, 9, 7):
        dk.generate(model, IDS, max_new_tokens=new_tokens, compile=True)
    assert len(shapes) == graphs._PASSES - 1 + 5 + 8 + 6
    assert capfd.readouterr().err.count("Compiling LlamaForCausalLM for 2 rows") == 1


def _wrong(model, **inputs):
    output = model(**inputs)
    output.logits = output.logits.roll(1, -1)
    return output


def _broken(model, **inputs):
    raise RuntimeError("no triton here")


@pytest.mark.parametrize(
    ("forward", "reason"),
    [(_wrong, "other logits than the model"), (_broken, r"fails \(RuntimeError: no triton here\)")],
)
def test_a_graph_that_does_not_do_what_the_model_does_is_not_used(model, monkeypatch, forward, reason):
    plain = dk.generate(model, IDS, max_new_tokens=6)
    with_forward(monkeypatch, model, functools.partial(forward, model))
    with pytest.warns(UserWarning, match=f"compile=True has no effect on LlamaForCausalLM: .*{reason}"):
        ours = dk.generate(model, IDS, max_new_tokens=6, compile=True)
    assert torch.equal(ours, plain)


def test_where_transformers_does_not_compile_the_reason_says_so(monkeypatch):
    monkeypatch.setattr(graphs, "are_for", lambda _: True)
    with pytest.warns(UserWarning, match="transformers does not compile the forward"):
        dk.generate(tiny_llama(32), IDS, max_new_tokens=3, compile=True)
    with pytest.warns(UserWarning, match="disable_compile=True"):
        dk.generate(tiny_llama(32), IDS, max_new_tokens=3, compile=True, disable_compile=True)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_graphs_on_a_gpu_change_no_token(call):
    model = tiny_llama(32, dtype=torch.float32).cuda()
    call = {name: value.cuda() if isinstance(value, torch.Tensor) else value for name, value in call.items()}
    plain = dk.generate(model, IDS.cuda(), max_new_tokens=40, **call)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # as one would say that there are no graphs
        ours = dk.generate(model, IDS.cuda(), max_new_tokens=40, **call, compile=True)
    assert torch.equal(ours, plain)
