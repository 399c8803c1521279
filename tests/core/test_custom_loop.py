"""Functions and repositories of transformers' kind: they get what they get there, and what it drops."""

import decodekit as dk
import pytest
import torch
from decodekit.testing.models import tiny_llama
from decodekit.trust import allow_folder
from transformers import AutoTokenizer, GenerationConfig, LogitsProcessorList

IDS = torch.tensor([[0, 3, 4], [5, 6, 7]])
MASK = torch.tensor([[0, 1, 1], [1, 1, 1]])
ARGUMENTS = {
    "input_ids": IDS,
    "attention_mask": MASK,
    "max_new_tokens": 5,
    "eos_token_id": 31,
    "pad_token_id": 0,
}


@pytest.fixture(scope="module")
def model():
    return tiny_llama(dtype=torch.float32)


def greedy(model, input_ids, logits_processor, stopping_criteria, generation_config, **model_kwargs):
    """A loop as the docs of transformers show it, without a cache."""
    mask = model_kwargs["attention_mask"]
    mask = torch.ones_like(input_ids) if mask is None else mask
    while True:
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        logits = model(input_ids, attention_mask=mask, position_ids=positions).logits[:, -1]
        token = logits_processor(input_ids, logits.float()).argmax(-1)
        input_ids = torch.cat([input_ids, token[:, None]], dim=1)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        if bool(stopping_criteria(input_ids, None).all()):
            return input_ids


def recorder(**names):
    """A function that names some arguments, and what it got."""
    got = {}
    text = "".join(f", {name}={default}" for name, default in names.items())
    scope = {"got": got}
    source = (
        f"def loop(model, input_ids{text}, **more):\n    got.update(locals(), **more)\n    return input_ids"
    )
    exec(source, scope)
    return scope["loop"], got


@pytest.mark.parametrize(
    "more", [{}, {"repetition_penalty": 1.5}, {"num_return_sequences": 2, "do_sample": True}]
)
def test_a_function_decodes_as_in_transformers(model, more):
    theirs = model.generate(**ARGUMENTS, **more, custom_generate=greedy)
    ours = dk.generate(model, **ARGUMENTS, **more, custom_generate=greedy)
    assert torch.equal(ours, theirs)
    assert ours.shape == (2 * more.get("num_return_sequences", 1), 8)


def test_a_function_decodes_as_our_loop(model):
    ours = dk.generate(model, **ARGUMENTS, custom_generate=greedy)
    assert torch.equal(ours, dk.generate(model, **ARGUMENTS))


def test_a_function_gets_the_prepared_inputs(model):
    loop, got = recorder()
    config = GenerationConfig(repetition_penalty=1.25)
    dk.generate(model, **ARGUMENTS, generation_config=config, custom_generate=loop)
    assert got["model"] is model
    assert torch.equal(got["input_ids"], IDS)
    assert torch.equal(got["attention_mask"], MASK)
    assert isinstance(got["logits_processor"], LogitsProcessorList)
    assert got["generation_config"].max_length == 8
    assert got["generation_config"] is not config
    assert got["past_key_values"] is not None


@pytest.mark.parametrize(
    "name", ["streamer", "tokenizer", "assistant_model", "assistant_tokenizer", "synced_gpus"]
)
def test_what_transformers_drops_reaches_the_function_that_names_it(model, name):
    value = {"streamer": Listener(), "assistant_model": model, "synced_gpus": True}.get(name, object())
    loop, got = recorder(**{name: None})
    dk.generate(model, **ARGUMENTS, **{name: value}, custom_generate=loop)
    assert got[name] is value


def test_synced_gpus_is_found_out_as_transformers_does(model):
    loop, got = recorder(synced_gpus=None)
    dk.generate(model, **ARGUMENTS, custom_generate=loop)
    assert got["synced_gpus"] is False


@pytest.mark.parametrize("name", ["assistant_model", "assistant_tokenizer", "synced_gpus"])
def test_an_argument_that_the_function_does_not_name_is_refused(model, name):
    with pytest.raises(
        dk.UnsupportedArgumentError, match=f"{name} would have no effect: greedy does not name it"
    ):
        dk.generate(model, **ARGUMENTS, **{name: model}, custom_generate=greedy)


def test_own_keywords_reach_the_function(model):
    loop, got = recorder(alpha=0.5, beta=2)
    dk.generate(model, **ARGUMENTS, alpha=3.5, custom_generate=loop)
    assert (got["alpha"], got["beta"]) == (3.5, 2)


def test_a_keyword_that_is_a_field_of_the_configuration_reaches_both(model):
    loop, got = recorder(temperature=None)
    dk.generate(model, **ARGUMENTS, do_sample=True, temperature=0.5, custom_generate=loop)
    assert got["temperature"] == got["generation_config"].temperature == 0.5


def test_a_missing_keyword_is_named_before_the_model_runs():
    def loop(model, input_ids, alpha, **more):
        raise AssertionError

    with pytest.raises(dk.ParameterError, match="needs alpha=: pass it to generate"):
        dk.generate(tiny_llama(), **ARGUMENTS, custom_generate=loop)


def test_an_unknown_keyword_is_refused(model):
    with pytest.raises(ValueError, match="alhpa"):
        dk.generate(model, **ARGUMENTS, alhpa=1, custom_generate=recorder(alpha=0)[0])


@pytest.mark.parametrize("loop", [lambda model: 0, lambda model, ids: 0, lambda model, input_ids: 0])
def test_another_signature_is_refused(model, loop):
    with pytest.raises(dk.ParameterError, match=r"must take \(model, input_ids, logits_processor"):
        dk.generate(model, **ARGUMENTS, custom_generate=loop)


def test_a_function_without_open_keywords_gets_what_it_names(model):
    def loop(model, input_ids, logits_processor, stopping_criteria, generation_config, attention_mask):
        return attention_mask

    assert torch.equal(dk.generate(model, **ARGUMENTS, custom_generate=loop), MASK)


@pytest.mark.parametrize("where", ["keyword", "config"])
def test_stop_strings_stop_a_function_that_knows_no_tokenizer(model, tiny_folder, where):
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    arguments = {**ARGUMENTS, "input_ids": IDS[1:], "attention_mask": MASK[1:]}
    plain = dk.generate(model, **arguments)
    stop = [tokenizer.decode(plain[0, 4:5])]
    given = {"stop_strings": stop} if where == "keyword" else {}
    config = GenerationConfig(stop_strings=stop, use_cache=True) if where == "config" else None
    seen = []

    def loop(model, input_ids, logits_processor, stopping_criteria, generation_config, **more):
        seen.append(generation_config.stop_strings)
        return greedy(model, input_ids, logits_processor, stopping_criteria, generation_config, **more)

    arguments |= {"generation_config": config, "tokenizer": tokenizer, "custom_generate": loop}
    assert torch.equal(dk.generate(model, **arguments, **given), plain[:, :5])
    assert seen == [stop]


def test_stop_strings_need_a_tokenizer(model):
    with pytest.raises(dk.ParameterError, match="needs the tokenizer: pass tokenizer="):
        dk.generate(model, **ARGUMENTS, stop_strings=["a"], custom_generate=greedy)


class Listener:
    def __init__(self):
        self.got, self.ends = [], 0

    def put(self, tokens):
        self.got.append(tokens)

    def end(self):
        self.ends += 1


def test_a_streamer_of_a_function_that_knows_none_gets_every_token_and_one_end(model):
    listener = Listener()
    out = dk.generate(model, **ARGUMENTS, streamer=listener, custom_generate=greedy)
    heard = torch.cat([item if item.dim() == 2 else item[:, None] for item in listener.got], dim=1)
    assert torch.equal(heard, out)
    assert listener.ends == 1


def test_a_streamer_is_ended_after_an_error(model):
    def loop(model, input_ids, **more):
        raise RuntimeError("inside")

    listener = Listener()
    with pytest.raises(RuntimeError, match="inside"):
        dk.generate(model, **ARGUMENTS, streamer=listener, custom_generate=loop)
    assert listener.ends == 1


@pytest.mark.parametrize("more", [{"seed": 1}, {"processors": ["top_k"]}])
def test_what_only_our_loop_knows_is_refused(model, more):
    with pytest.raises(dk.UnsupportedArgumentError, match=f"{next(iter(more))}= has no effect on a custom"):
        dk.generate(model, **ARGUMENTS, **more, custom_generate=greedy)


def test_a_call_changes_neither_the_model_nor_its_arguments(model):
    before = model.generation_config.to_dict()
    config = GenerationConfig(max_new_tokens=2)
    kept = config.to_dict()
    criteria = []
    arguments = {**ARGUMENTS, "generation_config": config, "stopping_criteria": criteria}
    dk.generate(model, **arguments, custom_generate=greedy)
    assert (model.generation_config.to_dict(), config.to_dict(), criteria) == (before, kept, [])


GENERATE = """
def generate(model, inputs=None, generation_config=None, left=1, **kwargs):
    kwargs.pop("stop_after", None)
    return {"names": sorted(kwargs), "left": left, "config": generation_config}
"""


@pytest.fixture
def repo(tmp_path, monkeypatch):
    """A folder in transformers' layout; its code may be imported into a cache of this test."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(tmp_path / "modules")

    def make(source=GENERATE, requirements=None):
        folder = tmp_path / "my-loop" / "custom_generate"
        folder.mkdir(parents=True)
        (folder / "generate.py").write_text(source)
        if requirements:
            (folder / "requirements.txt").write_text(requirements)
        return folder.parent

    return make


@pytest.mark.parametrize("make", [str, lambda path: path])
def test_a_trusted_folder_gets_every_argument(model, repo, make):
    out = dk.generate(model, **ARGUMENTS, custom_generate=make(repo()), trust_remote_code=True, left=3)
    assert out["left"] == 3
    theirs = {"logits_processor", "stopping_criteria", "streamer", "assistant_model", "input_ids"}
    assert theirs <= set(out["names"])
    assert not {"strategy", "processors", "seed", "trust_remote_code", "custom_generate"} & set(out["names"])


@pytest.mark.parametrize("trusted", [None, False])
def test_a_folder_that_nobody_trusts_is_not_imported(model, repo, trusted):
    folder = repo("raise SystemExit('it ran')")
    with pytest.raises(
        dk.TrustError, match=r"read .*custom_generate/generate\.py, then pass trust_remote_code=True"
    ):
        dk.generate(model, **ARGUMENTS, custom_generate=str(folder), trust_remote_code=trusted)


def test_missing_requirements_are_named_before_the_code_is_imported(model, repo):
    folder = repo("raise SystemExit('it ran')", "# these\ntorch>=1\nno-such-lib>=2 # why\nattrs<1\n--pre\n")
    with pytest.raises(dk.MissingLibraryError, match="pip install 'no-such-lib>=2' 'attrs<1'"):
        dk.generate(model, **ARGUMENTS, custom_generate=str(folder), trust_remote_code=True)


def test_a_folder_without_the_file_is_named(model, tmp_path):
    with pytest.raises(dk.UnknownNameError, match=r"has no file custom_generate/generate\.py"):
        dk.generate(model, **ARGUMENTS, custom_generate=str(tmp_path), trust_remote_code=True)


def test_an_allow_list_holds_a_folder_to_its_hash(model, repo, tmp_path, monkeypatch):
    folder = repo()
    arguments = {**ARGUMENTS, "custom_generate": str(folder), "trust_remote_code": True}
    monkeypatch.setenv("DECODEKIT_ALLOW_LIST", str(tmp_path / "allowed.json"))
    (tmp_path / "allowed.json").write_text("{}")
    with pytest.raises(dk.TrustError, match="not on the allow-list"):
        dk.generate(model, **arguments)
    allow_folder(folder)
    assert dk.generate(model, **arguments)["left"] == 1
    (folder / "custom_generate" / "generate.py").write_text(GENERATE + "\n# changed")
    with pytest.raises(dk.TrustError, match="have changed since they were allowed"):
        dk.generate(model, **arguments)


def test_a_hub_repository_that_can_not_be_fetched_is_named(model, monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("no connection")

    monkeypatch.setattr(type(model), "load_custom_generate", offline)
    with pytest.raises(dk.ModelNotFoundError, match="'someone/loop' can't be fetched: no connection"):
        dk.generate(model, **ARGUMENTS, custom_generate="someone/loop", trust_remote_code=True)


def test_a_function_of_a_repository_without_open_keywords_is_called(model, repo):
    names = "model, input_ids, attention_mask, max_new_tokens, eos_token_id, pad_token_id"
    folder = repo(f"def generate({names}):\n    return max_new_tokens")
    assert dk.generate(model, **ARGUMENTS, custom_generate=folder, trust_remote_code=True) == 5


def test_a_model_input_that_the_function_names_is_the_prepared_one(model):
    def loop(model, input_ids, attention_mask=None, **more):
        return attention_mask

    arguments = {**ARGUMENTS, "num_return_sequences": 2, "do_sample": True}
    expanded = MASK.repeat_interleave(2, dim=0)
    assert torch.equal(dk.generate(model, **arguments, custom_generate=loop), expanded)


def test_a_seed_reaches_a_function_that_names_it(model):
    loop, got = recorder(seed=None)
    dk.generate(model, **ARGUMENTS, seed=4, custom_generate=loop)
    assert got["seed"] == 4


def test_inside_drop_in_a_function_runs_once(model):
    calls = []

    def loop(model, input_ids, **more):
        calls.append(input_ids)
        return input_ids

    with dk.drop_in(model):
        assert torch.equal(model.generate(**ARGUMENTS, custom_generate=loop), IDS)
    assert len(calls) == 1
