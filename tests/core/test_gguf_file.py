import os

import pytest
import torch
from decodekit import CapabilityError, ModelNotFoundError
from decodekit.converted import cache_folder, clear_cache, converted_models
from decodekit.load import load

from tests.core.gguf_files import write_gguf

TOKENS = torch.arange(18).view(2, 9)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache folder."""
    monkeypatch.setenv("DECODEKIT_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def whole(tiny_folder, tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", tiny_folder)


@pytest.fixture
def file(whole, tmp_path):
    """The GGUF of the tiny model, in a folder of its own."""
    path = tmp_path / "tiny.gguf"
    path.write_bytes(whole.read_bytes())
    return path


def logits(model):
    with torch.inference_mode():
        return model(TOKENS).logits.float()


def test_a_gguf_file_is_the_model_that_it_was_made_of_with_its_tokenizer(file, tiny_folder):
    model, tokenizer = load(file)
    original, other = load(tiny_folder)

    assert torch.allclose(logits(model), logits(original), atol=1e-5)
    assert model.dtype == torch.float32
    assert tokenizer("Grüße").input_ids == other("Grüße").input_ids
    assert tokenizer.chat_template == other.chat_template
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (256, 257)


def test_it_is_converted_once_for_each_dtype_and_told(file, capsys):
    load(file)
    assert "tiny.gguf is converted to float32 once" in capsys.readouterr().err

    load(str(file))
    assert "converted" not in capsys.readouterr().err
    assert load(file, dtype="bfloat16")[0].dtype == torch.bfloat16
    assert len(converted_models()) == 2


def test_a_file_that_has_changed_is_converted_again(file):
    load(file)
    os.utime(file, ns=(1, 1))

    load(file)

    assert len(converted_models()) == 2


def test_a_backend_quantizes_what_was_unpacked(file):
    model, _ = load(file, quant="bnb-nf4")

    assert type(model.model.layers[0].mlp.up_proj).__name__ == "Linear4bit"


def test_the_cache_is_cleared_of_it(file):
    load(file)

    assert clear_cache() > 100_000
    assert converted_models() == []
    assert list(cache_folder().glob("gguf-*")) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no.gguf", r"no GGUF file 'no\.gguf'.*org/name/file\.gguf"),
        ("./a/b/c.gguf", "no GGUF file"),
        ("a/b.gguf", "no GGUF file"),
        ("a/b/c.gguf", r"'a/b' is neither.*c\.gguf could not be fetched.*hf auth login"),
    ],
)
def test_a_file_that_is_nowhere_is_an_error_with_the_next_step(name, message, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    with pytest.raises(ModelNotFoundError, match=message):
        load(name)


def test_another_file_of_that_name_is_told_apart(tmp_path):
    (tmp_path / "text.gguf").write_text("not a model")

    with pytest.raises(ModelNotFoundError, match="does not begin with the letters GGUF"):
        load(tmp_path / "text.gguf")


def test_half_a_file_is_an_error_and_leaves_nothing(file):
    file.write_bytes(file.read_bytes()[:20_000])

    with pytest.raises(ModelNotFoundError, match=r"tiny\.gguf can't be read by transformers: .+"):
        load(file)

    assert list(cache_folder().glob("*/")) == []


def test_an_architecture_that_transformers_does_not_know_is_an_error(tiny_folder, tmp_path):
    path = write_gguf(tmp_path / "odd.gguf", tiny_folder, architecture="unheard")

    with pytest.raises(ModelNotFoundError, match=r"odd\.gguf can't be read by transformers: .*unheard"):
        load(path)


def test_one_of_several_parts_is_to_be_merged(file):
    part = file.rename(file.parent / "tiny-00001-of-00002.gguf")

    with pytest.raises(CapabilityError, match="llama-gguf-split --merge"):
        load(part)


def test_a_folder_with_a_gguf_names_the_file(file):
    with pytest.raises(ModelNotFoundError, match=rf"no config\.json: give {file}"):
        load(file.parent)
