import pytest
import torch
from decodekit import CapabilityError, ParameterError
from decodekit.load import load, model_bytes
from decodekit.testing import quant_checks
from decodekit_quant_backends.torchao_int4 import TorchaoInt4

from tests.quant_backends.strategies import STRATEGIES

CHECKS = quant_checks(TorchaoInt4, strategies=STRATEGIES)


@pytest.mark.parametrize("check", [body for _, body in CHECKS], ids=[name for name, _ in CHECKS])
def test_it_keeps_the_contract_and_its_laws(check):
    check()


CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")


def quant_type(backend, dtype=torch.float32, device=CPU):
    return backend.load_kwargs(dtype, device)["quantization_config"].quant_type


def test_each_device_has_its_layout():
    backend = TorchaoInt4(group_size=32, algorithm="hqq")
    on_cpu, on_cuda = quant_type(backend), quant_type(backend, torch.bfloat16, CUDA)

    assert on_cuda.int4_packing_format == "tile_packed_to_4d"
    assert type(on_cpu).__name__ == "PrototypeInt4WeightOnlyConfig"
    for config in (on_cpu, on_cuda):
        assert (config.group_size, config.int4_choose_qparams_algorithm) == (32, "hqq")
        assert config.set_inductor_config is False


def test_cuda_needs_bfloat16_and_says_so():
    with pytest.raises(CapabilityError, match=r"on cuda:0 needs dtype='bfloat16', not torch\.float16"):
        TorchaoInt4().load_kwargs(torch.float16, CUDA)


def test_an_old_gpu_is_a_problem_with_a_way_out(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))

    [problem] = TorchaoInt4().problems(CUDA)

    assert "compute capability 8" in problem
    assert "bnb-nf4" in problem


@pytest.mark.parametrize(("dtype", "bits"), [("float32", 5), ("bfloat16", 4.5)])
def test_a_linear_weight_takes_four_bits_and_its_share_of_scale_and_zero(tiny_folder, dtype, bits):
    plain, quantized = (load(tiny_folder, quant=quant, dtype=dtype)[0] for quant in ("none", "torchao-int4"))
    weights = sum(p.numel() for n, p in plain.named_parameters() if "proj" in n)

    saved = (model_bytes(plain) - model_bytes(quantized)) * 8 / weights

    assert saved == plain.dtype.itemsize * 8 - bits


def test_small_groups_and_hqq_are_closer(tiny_folder, distance):
    def far(**options):
        return distance(load(tiny_folder, quant="torchao-int4", **options)[0])

    assert far(group_size=32) < far(group_size=128) < 0.5
    assert far(algorithm="hqq") < far()


def test_the_forward_is_deterministic_and_each_row_for_itself(tiny_folder, logits_of):
    model, _ = load(tiny_folder, quant="torchao-int4")
    both = logits_of(model)

    with torch.inference_mode():
        alone = model(torch.arange(9)[None]).logits

    assert torch.equal(both, logits_of(model))
    assert torch.allclose(both[:1], alone, atol=1e-4)


def test_groups_that_do_not_fit_a_layer_are_refused(tiny_folder):
    with pytest.raises(ParameterError, match=r"group_size=256.*32, 64, 128"):
        load(tiny_folder, quant="torchao-int4", group_size=256)


@pytest.mark.cuda
def test_it_runs_on_a_gpu_and_can_be_saved_there(tiny_folder, cuda, distance, tmp_path, logits_of):
    model, tokenizer = load(tiny_folder, quant="torchao-int4", dtype="bfloat16", device_map={"": cuda})
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)

    again, _ = load(tmp_path, dtype="bfloat16", device_map={"": cuda})

    assert distance(model) < 0.5
    assert torch.equal(logits_of(model), logits_of(again))
