import importlib
import json
import shutil
from pathlib import Path

import attrs
import huggingface_hub.constants
import pytest
import torch
from decodekit import (
    CapabilityError,
    DamagedCacheError,
    ModelNotFoundError,
    ParameterError,
    QuantBackend,
    UnknownNameError,
    default_model,
    param,
)
from decodekit.load import load, model_bytes


@attrs.frozen
class Halved(QuantBackend):
    """Load in float16 and round nothing else."""

    NAME = "halved"
    twice: bool = param(False, help="Halve the weights' values too.")

    def load_kwargs(self, dtype, device):
        assert isinstance(dtype, torch.dtype)
        return {"attn_implementation": "eager"}

    def convert(self, model):
        if self.twice:
            with torch.no_grad():
                model.model.norm.weight.mul_(0.5)
        return model.half()


@pytest.fixture
def folder(tiny_folder, tmp_path):
    """A copy of the tiny model's folder, for tests that break it."""
    return shutil.copytree(tiny_folder, tmp_path / "model")


@pytest.fixture
def offline(monkeypatch):
    """The hub can't be reached, and nobody waits for it."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def test_a_folder_gives_a_model_in_eval_mode_and_its_tokenizer(tiny_folder):
    model, tokenizer = load(tiny_folder)

    assert not model.training
    assert tokenizer.decode(tokenizer("Grüße").input_ids) == "Grüße"
    assert model.dtype == torch.float32
    assert model.device.type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_without_a_name_it_is_the_default_model(tiny_folder, monkeypatch):
    module = importlib.import_module("decodekit.load")  # decodekit.load itself is the function
    monkeypatch.setattr(module, "default_model", lambda: tiny_folder)

    assert load()[0].config.vocab_size == load(tiny_folder)[0].config.vocab_size


@pytest.mark.parametrize(
    ("quant", "options"),
    [
        (Halved, {}),
        (Halved(), {}),
        ((Halved, {"twice": False}), {}),
        (Halved, {"twice": False}),
        ((Halved, {}), {"twice": False}),
    ],
    ids=["class", "instance", "pair", "keywords", "pair and keywords"],
)
def test_a_backend_by_class_instance_pair_and_keywords(tiny_folder, quant, options):
    model, _ = load(tiny_folder, quant=quant, **options)

    assert model.dtype == torch.float16
    assert model.config._attn_implementation == "eager"
    assert float(model.model.norm.weight.detach()[0]) == 1.0


def test_keywords_come_before_the_options_of_a_pair(tiny_folder):
    model, _ = load(tiny_folder, quant=(Halved, {"twice": False}), twice=True)

    assert float(model.model.norm.weight.detach()[0]) == 0.5


def test_an_instance_takes_no_keywords(tiny_folder):
    with pytest.raises(ParameterError, match="instance already: give twice to its constructor"):
        load(tiny_folder, quant=Halved(), twice=True)


def test_an_unknown_backend_is_named_with_the_nearest(tiny_folder):
    with pytest.raises(UnknownNameError, match=r"'bnb-nf5'.*'bnb-nf4'"):
        load(tiny_folder, quant="bnb-nf5")


def test_an_unknown_option_is_named_with_the_nearest(tiny_folder):
    with pytest.raises(ParameterError, match=r"'twize'.*Did you mean 'twice'"):
        load(tiny_folder, quant=Halved, twize=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "float23"}, "dtype='float23'.*'float32'"),
        ({"temperature": 0.5}, "leave 'temperature' out. temperature is an argument of generate."),
        ({"validate": True}, "leave 'validate' out$"),
        ({"seed": 1}, "leave 'seed' out. seed is an argument of generate."),
        ({"dtyp": "float32"}, "leave 'dtyp' out. Did you mean 'dtype'"),
        ({"device_map": "gpu"}, "device_map='gpu'.*'cuda:0'"),
    ],
)
def test_a_wrong_dtype_or_device_is_named_before_anything_is_loaded(arguments, message):
    with pytest.raises(ParameterError, match=message):
        load("/no/such/folder", **arguments)


@pytest.mark.parametrize("name", ["/no/such/folder", "./nope", "~/nope/nope", "a/b/c", ""])
def test_a_missing_folder_is_an_error_with_the_next_step(name):
    with pytest.raises(ModelNotFoundError, match=f"no folder '{name}'.*save_pretrained"):
        load(name)


def test_a_file_is_no_folder(folder):
    with pytest.raises(ModelNotFoundError, match="no folder"):
        load(folder / "config.json")


def test_a_folder_without_a_configuration_is_named(tmp_path):
    with pytest.raises(ModelNotFoundError, match=r"has no config\.json"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["nobody/nothing", "not a name"])
def test_a_hub_id_that_is_nowhere_is_an_error_with_the_next_step(offline, name):
    with pytest.raises(ModelNotFoundError, match=f"'{name}' is neither a folder here nor .*`hf auth login`"):
        load(name)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "config.json").write_text("{"),
        lambda folder: (folder / "config.json").write_text('{"model_type": "unheard-of"}'),
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: (folder / "model.safetensors").write_bytes(b"cut"),
    ],
    ids=["half a configuration", "unknown model type", "no weights", "half the weights"],
)
def test_a_folder_that_can_not_be_loaded_is_named_with_the_reason(folder, damage):
    damage(folder)

    with pytest.raises(ModelNotFoundError, match=f"the model in {folder} can't be loaded: .+"):
        load(folder)


def test_damage_to_the_default_model_that_sizes_do_not_show_is_told_with_the_mending(
    tiny_folder, monkeypatch, tmp_path
):
    def write(source, folder):
        shutil.copytree(tiny_folder, folder, dirs_exist_ok=True)

    monkeypatch.setenv("DECODEKIT_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(default_model, "_write_model", write)
    monkeypatch.setattr(default_model, "gguf_file", lambda: "some.gguf")
    config = default_model.default_model() / "config.json"
    config.write_text("{".ljust(config.stat().st_size))

    with pytest.raises(DamagedCacheError, match=r"damaged \(config.json\): run `decodekit cache clear`"):
        load()


def test_a_quantized_model_is_not_quantized_again(folder, monkeypatch):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(config | {"quantization_config": {"quant_method": "gptq", "bits": 4}})
    )

    with pytest.raises(CapabilityError, match=r"quantized already.*quant='bnb-nf4'.*Leave quant out"):
        load(folder, quant="bnb-nf4")


def test_a_revision_of_a_folder_changes_nothing(tiny_folder):
    assert load(tiny_folder, revision="v1")[0].config.vocab_size == 258


@pytest.mark.parametrize(
    ("name", "instead"),
    [("torch_dtype", "dtype="), ("load_in_4bit", "quant='bnb-nf4'"), ("device", "device_map=")],
)
def test_an_argument_of_from_pretrained_is_answered_with_ours(tiny_folder, name, instead):
    with pytest.raises(ParameterError, match=f"{name}= is not an argument of load: use {instead}"):
        load(tiny_folder, **{name: "auto"})


def test_a_device_that_a_backend_does_not_run_on_is_refused(tiny_folder, monkeypatch):
    monkeypatch.setattr(Halved, "DEVICES", ("cuda",))

    with pytest.raises(CapabilityError, match="quant='halved' can't be used on cpu: it runs on cuda only"):
        load(tiny_folder, quant=Halved)


def test_what_is_not_quantized_does_not_keep_the_file_in_memory(tiny_folder):
    def mapped():
        return Path("/proc/self/maps").read_text().count(str(tiny_folder))

    before = mapped()
    model, _ = load(tiny_folder, quant="torchao-int8", device_map="cpu")

    assert mapped() == before
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_bytes_count_shared_storage_once():
    tied = torch.nn.ModuleList([torch.nn.Linear(4, 4, bias=False) for _ in range(2)])
    tied[1].weight = tied[0].weight
    view = torch.nn.Module()
    view.whole = torch.nn.Parameter(torch.zeros(10))
    view.part = torch.nn.Parameter(view.whole.detach()[:5])

    assert model_bytes(tied) == 4 * 4 * 4
    assert model_bytes(view) == 40


def test_bytes_count_buffers_and_what_hangs_on_quantized_weights():
    class Scales:
        def __init__(self):
            self.absmax = torch.zeros(3)

    module = torch.nn.Linear(2, 2, bias=False)
    module.register_buffer("table", torch.zeros(5, dtype=torch.float64))
    module.weight.quant_state = Scales()
    module.weight.owner = module  # as bitsandbytes does; must not be followed

    assert model_bytes(module) == 4 * 4 + 5 * 8 + 3 * 4


def test_a_device_that_is_not_there_is_named_with_those_that_are(tiny_folder):
    missing = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(ParameterError, match=f"device_map='{missing}' is not there: this machine has 'cpu'"):
        load(tiny_folder, device_map=missing)


def test_what_is_no_name_of_a_model_is_refused():
    with pytest.raises(ParameterError, match="name_or_path=5 must be a folder, a hub id"):
        load(5)
