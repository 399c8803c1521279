import attrs
import pytest
import torch
from decodekit import ModelTooLargeError, QuantBackend
from decodekit.load import load, model_bytes
from decodekit.memory import available_bytes, is_out_of_memory, needed_bytes


def free(monkeypatch, size):
    monkeypatch.setattr("decodekit.memory.available_bytes", lambda device: size)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_estimate_is_what_the_loaded_model_holds(tiny_folder, dtype):
    model, _ = load(tiny_folder, dtype=dtype)
    buffers = sum(buffer.nbytes for buffer in {id(b): b for b in model.buffers()}.values())

    assert needed_bytes(model.config, dtype, None) == model_bytes(model) - buffers


def test_a_backend_takes_its_bits_for_linear_weights_only(tiny_folder):
    model, _ = load(tiny_folder)
    linear = sum(p.numel() for n, p in model.named_parameters() if "proj" in n)

    saved = needed_bytes(model.config, torch.float32, None) - needed_bytes(model.config, torch.float32, 4.0)

    assert saved == linear * 28 / 8


def test_a_model_that_can_not_fit_is_refused_with_what_would(tiny_folder, monkeypatch):
    size = needed_bytes(load(tiny_folder)[0].config, torch.float32, None)
    free(monkeypatch, size - 1)

    with pytest.raises(ModelTooLargeError) as caught:
        load(tiny_folder)

    said = str(caught.value)
    assert "does not fit: with quant='none' and float32" in said
    for option in ("dtype='bfloat16'", "quant='bnb-nf4'", "quant='torchao-int8'"):
        assert option in said


def test_only_what_fits_is_proposed(tiny_folder, monkeypatch):
    size = needed_bytes(load(tiny_folder)[0].config, torch.float32, 5.0)
    free(monkeypatch, size)

    with pytest.raises(ModelTooLargeError) as caught:
        load(tiny_folder)

    assert "quant='bnb-nf4'" in str(caught.value)
    assert "bnb-int8" not in str(caught.value)
    assert load(tiny_folder, quant="bnb-nf4")


def test_nothing_that_fits_is_said_so(tiny_folder, monkeypatch):
    free(monkeypatch, 1000)

    with pytest.raises(ModelTooLargeError, match="nothing that is installed makes it small enough"):
        load(tiny_folder)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
    ],
    ids=["cuda", "cpu", "python"],
)
def test_running_out_of_memory_while_loading_is_told_with_what_would_fit(tiny_folder, error):
    @attrs.frozen
    class Greedy(QuantBackend):
        NAME = "greedy-for-memory"

        def convert(self, model):
            raise error

    assert is_out_of_memory(error)
    with pytest.raises(
        ModelTooLargeError, match=r"quant='greedy-for-memory'.*What would fit: dtype='bfloat16'"
    ):
        load(tiny_folder, quant=Greedy)


def test_another_error_stays_what_it_is(tiny_folder):
    @attrs.frozen
    class Wrong(QuantBackend):
        NAME = "wrong"

        def convert(self, model):
            message = "shapes do not match"
            raise RuntimeError(message)

    with pytest.raises(RuntimeError, match="shapes do not match"):
        load(tiny_folder, quant=Wrong)


def test_the_system_says_how_much_is_free():
    assert 1e7 < available_bytes(torch.device("cpu")) < 1e14


@pytest.mark.cuda
def test_a_gpu_says_how_much_is_free(cuda):
    assert 1e7 < available_bytes(cuda) < 1e12
