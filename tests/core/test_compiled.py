import copy
import importlib
import os
import sys
import warnings

import decodekit as dk
import pytest
import torch
from decodekit import kernels, regions
from decodekit.compiled import compiled_step
from decodekit.kernels import Kernel, NotCompilableError, kernel_files
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
    StaticCache,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

THOROUGH = os.environ.get("DECODEKIT_TEST_PROFILE") == "thorough"
SIZES = {"vocab_size": 99, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0, "eos_token_id": 1}


def made(cls, config):
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return cls(config).eval()


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DECODEKIT_CACHE_DIR", str(tmp_path))


@pytest.fixture(scope="module")
def model():
    return made(LlamaForCausalLM, LLAMA)


LLAMA = LlamaConfig(**SIZES, **HEADS, initializer_range=0.3)
PROMPTS = torch.tensor([[0, 0, 5, 7], [9, 4, 5, 4], [0, 3, 3, 3]])
MASK = (PROMPTS != 0).long()


CALLS = {
    "greedy": {"do_sample": False},
    "sampled": {"do_sample": True, "temperature": 0.8, "top_p": 0.9, "seed": [1, 2, 3]},
    "assisted": {"strategy": "assisted", "prompt_lookup_num_tokens": 3, "adaptive": False},
}


def same_as_the_model(model, prompts, **call):
    call = {
        "attention_mask": (prompts != 0).long(),
        "return_dict_in_generate": True,
        "pad_token_id": 0,
        **call,
    }
    wanted = dk.generate(model, prompts, **call)
    seen = dk.generate(model, prompts, compile=True, **call)
    assert seen.sequences.tolist() == wanted.sequences.tolist()
    assert seen.stats.forward_passes == wanted.stats.forward_passes
    for ours, theirs in zip(seen.token_logprobs, wanted.token_logprobs, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", CALLS)
def test_ragged_batches_whose_rows_leave_get_the_tokens_of_the_model(model, interpreted, name):
    mine = copy.deepcopy(model)
    same_as_the_model(mine, PROMPTS, max_new_tokens=24, **CALLS[name])


def test_compiled_kernels_get_the_tokens_of_the_model_and_serve_all_of_its_form(model, monkeypatch):
    """Of several rows; those of one are compiled where the pages of the docs run with the default model."""
    together = {"max_new_tokens": 24, "min_new_tokens": 24}  # no row leaves before the others
    same_as_the_model(model, PROMPTS, **together, do_sample=False)
    same_as_the_model(model, PROMPTS[1:2], num_beams=4, max_new_tokens=12, length_penalty=0.5)
    assert len(kernel_files()) == 2  # a layer's and the head's

    monkeypatch.setattr(regions, "compile_kernel", None)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.model.layers[0].mlp.down_proj.weight.neg_()
    same_as_the_model(other, PROMPTS, **together, do_sample=False)


@pytest.mark.skipif(not THOROUGH, reason="a kernel takes a quarter of a minute to compile")
def test_rows_that_leave_and_the_last_one_have_kernels(model):
    same_as_the_model(model, PROMPTS, max_new_tokens=24, do_sample=False)
    same_as_the_model(model, PROMPTS[1:2], max_new_tokens=24, do_sample=False)
    assert len(kernel_files()) == 4


@pytest.mark.skipif(not THOROUGH, reason="kernels of blocks take half a minute to compile")
def test_compiled_kernels_of_blocks_get_the_tokens_of_the_model(model):
    thrice = PROMPTS[1:2].expand(3, -1)  # no row leaves before the other: that would be further kernels
    same_as_the_model(model, thrice, max_new_tokens=24, **CALLS["assisted"])


HEAD = {"head_dim": 16, "sliding_window": 3}
WINDOWED = {**HEAD, "layer_types": ["sliding_attention", "full_attention"]}
FAMILIES = {
    "cohere": (CohereForCausalLM, CohereConfig, {}),
    "gemma2": (Gemma2ForCausalLM, Gemma2Config, HEAD),
    "gemma3": (Gemma3ForCausalLM, Gemma3TextConfig, WINDOWED),
    "gpt2": (GPT2LMHeadModel, GPT2Config, {"n_head": 4}),
    "gpt_neox": (GPTNeoXForCausalLM, GPTNeoXConfig, {}),
    "mistral": (MistralForCausalLM, MistralConfig, HEAD),
    "opt": (OPTForCausalLM, OPTConfig, {"ffn_dim": 96, "word_embed_proj_dim": 64}),
    "phi": (PhiForCausalLM, PhiConfig, {}),
    "phi3": (Phi3ForCausalLM, Phi3Config, {}),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {}),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, HEAD),
    "smollm3": (SmolLM3ForCausalLM, SmolLM3Config, {}),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_families_of_dense_decoders_get_the_tokens_of_the_model(interpreted, name):
    cls, config, own = FAMILIES[name]
    model = made(cls, config(**{**SIZES, **HEADS, "initializer_range": 0.3, **own}))
    same_as_the_model(model, PROMPTS, max_new_tokens=10, do_sample=False)


def test_the_model_stays_as_it_was_and_its_weights_are_shared(model, interpreted):
    mine = copy.deepcopy(model)
    parts = [type(part) for part in mine.modules()]
    attention = mine.config._attn_implementation
    before = dk.generate(mine, PROMPTS[1:2], compile=True, max_new_tokens=8)
    assert [type(part) for part in mine.modules()] == parts
    assert mine.config._attn_implementation == attention
    with torch.no_grad():
        mine.model.layers[0].mlp.down_proj.weight.neg_()
    after = dk.generate(mine, PROMPTS[1:2], compile=True, max_new_tokens=8)
    assert after.tolist() == dk.generate(mine, PROMPTS[1:2], max_new_tokens=8).tolist() != before.tolist()


T5 = T5Config(vocab_size=99, d_model=16, d_kv=4, d_ff=32, num_layers=1, num_heads=4, decoder_start_token_id=0)


class Numbered(LlamaDecoderLayer):
    def forward(self, hidden_states, **kwargs):
        doubled = hidden_states * 2 if self.self_attn.layer_idx % 2 else hidden_states
        return super().forward(doubled, **kwargs)


def numbered():
    model = made(LlamaForCausalLM, LlamaConfig(**SIZES, **HEADS))
    for layer in model.model.layers:
        layer.__class__ = Numbered
    return model


def patched():
    """A layer that somebody gave another forward, which its class knows nothing of."""
    model = made(LlamaForCausalLM, LlamaConfig(**SIZES, **HEADS))
    model.model.layers[1].mlp.forward = lambda x: 3 * x
    return model


WITHOUT = {
    "an encoder-decoder model": lambda: made(T5ForConditionalGeneration, T5),
    "its attention can't be replaced": lambda: made(MambaForCausalLM, MambaConfig(**SIZES)),
    "has 3 dimensions": lambda: made(MixtralForCausalLM, MixtralConfig(**SIZES, **HEADS)),
    "differ by their number": numbered,
    "layers.1.mlp was replaced": patched,
}


@pytest.mark.parametrize("reason", WITHOUT)
def test_a_model_without_a_compiled_step_runs_as_it_is_and_says_why(reason):
    model = WITHOUT[reason]()
    call = {"max_new_tokens": 3, "pad_token_id": 0}
    with pytest.warns(UserWarning, match=reason):
        seen = dk.generate(model, PROMPTS[1:2], compile=True, **call)
    assert seen.tolist() == dk.generate(model, PROMPTS[1:2], **call).tolist()


@pytest.mark.parametrize(
    ("reason", "arguments"),
    [
        ("needs a cache", {"use_cache": False}),
        ("this call's is 'static'", {"cache_implementation": "static", "disable_compile": True}),
        ("this call's is a StaticCache", {"past_key_values": lambda: StaticCache(LLAMA, 99)}),
        ("no hidden states", {"output_hidden_states": True, "return_dict_in_generate": True}),
        ("more than tokens", {"position_ids": torch.arange(4)[None]}),
    ],
)
def test_a_call_that_it_is_not_for_runs_as_it_is_and_says_why(model, reason, arguments):
    arguments = {name: value() if callable(value) else value for name, value in arguments.items()}
    with pytest.warns(UserWarning, match=f"compile=True has no effect on LlamaForCausalLM: .*{reason}"):
        dk.generate(model, PROMPTS[1:2], compile=True, max_new_tokens=2, **arguments)


def test_a_model_in_training_mode_is_refused_with_the_reason(model):
    with pytest.raises(NotCompilableError, match="training mode"):
        compiled_step(copy.deepcopy(model).train())


def test_code_with_its_own_loop_says_that_it_runs_the_model_as_it_is(model):
    with pytest.raises(dk.UnsupportedArgumentError, match="compile= has no effect"):
        dk.generate(
            model, PROMPTS[1:2], compile=True, custom_generate=lambda model, input_ids, **_: input_ids
        )


def test_a_missing_compiler_is_named_and_the_model_runs_as_it_is(model, monkeypatch, tmp_path):
    class InvalidCxxCompiler(RuntimeError):  # noqa: N818 - as torch calls it
        pass

    def fail(*args, **kwargs):
        raise InvalidCxxCompiler("No working C++ compiler found")

    monkeypatch.setattr("torch._inductor.aoti_compile_and_package", fail)
    with pytest.warns(UserWarning, match=r"no C\+\+ compiler: install one"):
        dk.generate(copy.deepcopy(model), PROMPTS[1:2], compile=True, max_new_tokens=2)
    assert [path.name for path in (tmp_path / "kernels").iterdir()] == ["lock"]


def test_a_damaged_kernel_is_deleted_and_the_next_call_makes_a_new_one(model, monkeypatch, capsys):
    monkeypatch.setattr(regions, "compile_kernel", lambda body, inputs, dynamic, path: write(path))

    def write(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"cut short")

    with pytest.warns(UserWarning, match="can't be loaded"):
        dk.generate(copy.deepcopy(model), PROMPTS[1:2], compile=True, max_new_tokens=2)
    assert kernel_files() == []
    assert "Compiling the decoder layer of LlamaForCausalLM" in capsys.readouterr().err


def test_a_cache_folder_that_cant_be_written_is_named(model, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DECODEKIT_CACHE_DIR", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="DECODEKIT_CACHE_DIR"):
        dk.generate(copy.deepcopy(model), PROMPTS[1:2], compile=True, max_new_tokens=2)


def test_kernels_depend_on_versions_and_on_the_machine(monkeypatch):
    paths = {Kernel.path(["a form"])}
    monkeypatch.setattr(torch, "__version__", "0")
    paths.add(Kernel.path(["a form"]))
    monkeypatch.setattr(kernels, "_cpu", lambda: "another")
    paths.add(Kernel.path(["a form"]))
    assert len(paths) == 3


def test_load_remembers_that_it_was_asked(tiny_folder, interpreted):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, _ = dk.load(tiny_folder, compile=True)
    ids = torch.tensor([[5, 6, 7]])
    step = compiled_step(model)
    calls = []
    step.for_pass = lambda batch, count, prompt: calls.append(count) or (None if prompt else step)
    compiled = dk.generate(model, ids, max_new_tokens=5)
    assert calls == [3, 1, 1, 1, 1]
    assert dk.generate(model, ids, max_new_tokens=5, compile=False).tolist() == compiled.tolist()
    assert len(calls) == 5


@pytest.mark.parametrize("value", ["no", 1, {"mode": "x"}])
def test_what_is_neither_true_nor_false_is_refused(model, tiny_folder, value):
    with pytest.raises(dk.ParameterError, match="compile must be True or False"):
        dk.generate(model, PROMPTS[1:2], compile=value, max_new_tokens=2)
    with pytest.raises(dk.ParameterError, match="compile must be True or False"):
        dk.load(tiny_folder, compile=value)


def test_what_was_compiled_is_not_used_for_a_model_that_has_changed(model, interpreted):
    mine = copy.deepcopy(model)
    first = compiled_step(mine)
    assert compiled_step(mine) is first
    mine.double()  # kernels for float32 would read these weights as something else
    assert compiled_step(mine) is not first
    same_as_the_model(mine, PROMPTS, max_new_tokens=6, do_sample=False)
    mine.train()
    with pytest.raises(NotCompilableError, match="training mode"):
        compiled_step(mine)


def _tanh(model):
    model.model.layers[0].mlp.act_fn = torch.nn.Tanh()


def _scaling(model):
    model.model.layers[0].self_attn.scaling = 1.7


def _swapped(model):
    layers = model.model.layers
    layers[0], layers[1] = layers[1], layers[0]


def _subclass(model):
    class Louder(type(model.model.layers[0].mlp)):
        def forward(self, x):
            return 3 * super().forward(x)

    model.model.layers[0].mlp.__class__ = Louder


@pytest.mark.parametrize("change", [_tanh, _scaling, _swapped, _subclass])
def test_a_module_that_was_changed_is_not_bypassed(model, interpreted, change):
    mine = copy.deepcopy(model)
    before, first = compiled_step(mine), [form.key for form in compiled_step(mine)._forms]
    change(mine)
    assert compiled_step(mine) is not before
    assert change is _swapped or [form.key for form in compiled_step(mine)._forms] != first  # on disk
    same_as_the_model(mine, PROMPTS, max_new_tokens=6, do_sample=False)


def test_hooks_are_not_bypassed(model, interpreted):
    mine = copy.deepcopy(model)
    compiled_step(mine)
    hook = mine.model.layers[0].register_forward_hook(lambda layer, inputs, output: -output)
    with pytest.warns(UserWarning, match="layers.0 has hooks"):
        seen = dk.generate(mine, PROMPTS[1:2], compile=True, max_new_tokens=6)
    assert seen.tolist() == dk.generate(mine, PROMPTS[1:2], max_new_tokens=6).tolist()
    hook.remove()
    same_as_the_model(mine, PROMPTS, max_new_tokens=6, do_sample=False)


def test_the_hooks_by_which_transformers_records_are_none_of_a_user(model, interpreted):
    mine = copy.deepcopy(model)
    mine(PROMPTS[1:2], output_hidden_states=True)
    same_as_the_model(mine, PROMPTS, max_new_tokens=6, do_sample=False)


@pytest.fixture
def strangers_package(tmp_path, monkeypatch):
    package = tmp_path / "layers_of_a_stranger"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "helper.py").write_text("def twice(x):\n    return 2 * x\n")
    lines = (
        "from torch import nn",
        "from . import helper",
        "class Layer(nn.Module):",
        "    def forward(self, x):",
        "        return helper.twice(x)",
    )
    (package / "layer.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    yield package
    for name in [name for name in sys.modules if name.startswith(package.name)]:
        del sys.modules[name]


def test_a_helper_of_a_layer_that_has_changed_makes_another_kernel(strangers_package):
    layer = importlib.import_module("layers_of_a_stranger.layer").Layer()
    keys = [regions.Form(layer, None, "a layer").key for _ in range(2)]
    (strangers_package / "helper.py").write_text("def twice(x):\n    return x + x\n")
    kernels.file_digest.cache_clear()  # as in another process
    assert len({*keys, regions.Form(layer, None, "a layer").key}) == 2


def test_what_an_editor_leaves_beside_a_layer_is_no_helper(strangers_package):
    (strangers_package / ".#layer.py").symlink_to("somebody@somewhere.123")
    layer = importlib.import_module("layers_of_a_stranger.layer").Layer()
    assert regions.Form(layer, None, "a layer").key
