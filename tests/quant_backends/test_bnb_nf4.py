import logging

import pytest
import torch
from decodekit import CapabilityError, MissingLibraryError, ParameterError
from decodekit.generate import generate
from decodekit.load import load, model_bytes
from decodekit.testing import quant_checks
from decodekit_quant_backends.bnb_nf4 import BnbNf4
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from tests.quant_backends.strategies import STRATEGIES

CHECKS = quant_checks(BnbNf4, strategies=STRATEGIES)


@pytest.mark.parametrize("check", [body for _, body in CHECKS], ids=[name for name, _ in CHECKS])
def test_it_keeps_the_contract_and_its_laws(check):
    check()


def config_of(backend):
    return backend.load_kwargs(torch.bfloat16, torch.device("cpu"))["quantization_config"]


def test_every_option_reaches_transformers():
    config = config_of(
        BnbNf4(compute_dtype="float16", double_quant=True, storage_dtype="float32", skip_modules=("o_proj",))
    )

    assert (config.load_in_4bit, config.bnb_4bit_quant_type) == (True, "nf4")
    assert config.bnb_4bit_compute_dtype == torch.float16
    assert config.bnb_4bit_use_double_quant is True
    assert config.bnb_4bit_quant_storage == torch.float32
    assert config.llm_int8_skip_modules == ["lm_head", "o_proj"]


def test_products_are_in_the_dtype_of_the_model_when_none_is_given():
    assert config_of(BnbNf4()).bnb_4bit_compute_dtype == torch.bfloat16


def test_logits_stay_within_a_bound_of_the_unquantized(tiny_folder, distance):
    model, _ = load(tiny_folder, quant="bnb-nf4")

    assert 0.01 < distance(model) < 0.4  # random weights are the worst case: nothing in them is redundant


def test_the_forward_is_that_of_the_rounded_weights(tiny_folder, logits_of):
    rounded = load(tiny_folder, quant="bnb-nf4")[0].dequantize()
    expected = logits_of(rounded)

    actual = logits_of(load(tiny_folder, quant="bnb-nf4")[0])

    assert (actual - expected).norm() / expected.norm() < 0.03  # products in bfloat16 on some CPUs


def test_the_forward_is_deterministic(tiny_folder, logits_of):
    model, _ = load(tiny_folder, quant="bnb-nf4")

    assert torch.equal(logits_of(model), logits_of(model))


def test_a_linear_weight_takes_four_and_a_half_bits(tiny_folder):
    plain, quantized = (load(tiny_folder, quant=quant)[0] for quant in ("none", "bnb-nf4"))
    weights = sum(p.numel() for n, p in plain.named_parameters() if "proj" in n)

    bits = (model_bytes(quantized) - (model_bytes(plain) - 4 * weights)) * 8 / weights

    assert 4.5 <= bits < 4.6  # and a code book of 16 values a layer


def test_skipped_modules_and_the_tied_output_layer_keep_their_weights(tiny_folder):
    plain, quantized = (
        load(tiny_folder, quant=quant)[0] for quant in ("none", ("bnb-nf4", {"skip_modules": "q_proj"}))
    )

    kinds = {name: type(module).__name__ for name, module in quantized.named_modules()}

    assert kinds["model.layers.0.self_attn.q_proj"] == kinds["lm_head"] == "Linear"
    assert kinds["model.layers.0.self_attn.k_proj"] == "Linear4bit"
    assert torch.equal(quantized.lm_head.weight, plain.lm_head.weight)
    assert quantized.lm_head.weight is quantized.model.embed_tokens.weight


def test_double_quantization_shrinks_the_scales(tiny_folder):
    scales = [
        load(tiny_folder, quant="bnb-nf4", double_quant=on)[0]
        .model.layers[0]
        .mlp.up_proj.weight.quant_state.absmax
        for on in (False, True)
    ]

    assert [scale.dtype for scale in scales] == [torch.float32, torch.uint8]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"duble_quant": True}, "Did you mean 'double_quant'"),
        ({"compute_dtype": "int8"}, "compute_dtype='int8'.*'float32', 'bfloat16', 'float16'"),
        ({"double_quant": 3}, "double_quant=3"),
    ],
)
def test_a_wrong_option_is_named_with_what_is_right(tiny_folder, options, message):
    with pytest.raises(ParameterError, match=message):
        load(tiny_folder, quant="bnb-nf4", **options)


def test_a_missing_library_comes_with_the_line_that_installs_it(monkeypatch):
    monkeypatch.setattr(BnbNf4, "REQUIRES", {"no_such_library": "no-such-library>=2"})

    with pytest.raises(MissingLibraryError, match=r"quant='bnb-nf4'.*pip install 'no-such-library>=2'"):
        BnbNf4().check(torch.device("cpu"))


def test_the_message_about_an_optional_kernel_is_not_shown_and_others_are(caplog):
    config_of(BnbNf4())
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")

    logger.warning("Failed to load CPU gemm_4bit_forward from %s", "somewhere")
    logger.warning("something new")

    assert [record.getMessage() for record in caplog.records] == ["something new"]


def test_skip_modules_is_a_tuple_and_not_the_letters_of_a_text():
    assert BnbNf4(skip_modules=["o_proj"]).skip_modules == ("o_proj",)
    assert BnbNf4(skip_modules="o_proj").skip_modules == ("o_proj",)
    with pytest.raises(ParameterError, match="skip_modules="):
        BnbNf4(skip_modules=[1])


@pytest.fixture(scope="module")
def narrow_folder(tiny_folder, tmp_path_factory):
    """A model whose layers have 96 inputs: blocks of 64 weights cross the rows."""
    folder = tmp_path_factory.mktemp("narrow")
    AutoTokenizer.from_pretrained(tiny_folder).save_pretrained(folder)
    config = AutoConfig.from_pretrained(tiny_folder, hidden_size=96, intermediate_size=64, head_dim=48)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("quant", ["bnb-nf4", "bnb-fp4"])
def test_a_layer_that_cpu_kernels_get_wrong_is_refused_with_a_way_out(narrow_folder, quant):
    with pytest.raises(
        CapabilityError, match=r"the 96 inputs of \S+q_proj are no multiple of 64\. Name .*skip_m"
    ):
        load(narrow_folder, quant=quant, device_map="cpu")


def test_skipping_such_layers_helps(narrow_folder, logits_of):
    wide = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj")

    model, _ = load(narrow_folder, quant="bnb-nf4", skip_modules=wide, device_map="cpu")

    assert torch.isfinite(logits_of(model)).all()


@pytest.mark.real_model
def test_greedy_is_assisted_and_the_same_as_in_transformers():
    model, tokenizer = load(quant="bnb-nf4")
    text = "one two three four, one two three four, one two"
    inputs = tokenizer(text, return_tensors="pt")
    common = {"max_new_tokens": 24, "eos_token_id": None}

    greedy = generate(model, **inputs, **common, do_sample=False)
    assisted = generate(model, **inputs, **common, do_sample=False, prompt_lookup_num_tokens=4)
    theirs = model.generate(**inputs, **common, do_sample=False)

    assert greedy.tolist() == assisted.tolist() == theirs.tolist()


@pytest.mark.cuda
def test_it_runs_on_a_gpu(tiny_folder, cuda, distance):
    model, _ = load(tiny_folder, quant="bnb-nf4", device_map={"": cuda})

    assert distance(model) < 0.4
