"""Early exit: the first layers draft from the target's own cache, and the target stays as it is."""

import copy

import accelerate
import decodekit as dk
import pytest
import torch
from decodekit.testing import check_drafter
from decodekit.testing.models import MarkovModel, tiny_llama, tiny_mistral
from decodekit_strategies.drafters.early_exit import EarlyExit, first_layers

MODELS = {"llama": tiny_llama(7, seed=3), "mistral": tiny_mistral(7, window=4, seed=3)}
INPUTS = {
    "input_ids": torch.tensor([[0, 1, 3, 1, 3], [4, 5, 6, 3, 1]]),
    "attention_mask": torch.tensor([[0, 1, 1, 1, 1], [1] * 5]),
}


def run(model, **arguments):
    arguments = {"max_new_tokens": 12, "do_sample": True, "seed": 4, **arguments}
    return dk.generate(model, **INPUTS, return_dict_in_generate=True, **arguments)


@pytest.mark.parametrize("cache", [{}, {"use_cache": False}, {"cache_implementation": "static"}])
@pytest.mark.parametrize("name", MODELS)
def test_it_changes_no_token_in_any_cache(name, cache):
    if name == "mistral" and "cache_implementation" in cache:
        pytest.skip("a static window can't take tokens back, and is refused by name")
    plain = run(MODELS[name], **cache)
    fast = run(
        MODELS[name], **cache, strategy="assisted", drafter=("early_exit", {"layers": 1}), adaptive=False
    )
    assert torch.equal(fast.sequences, plain.sequences)
    assert fast.stats.drafted > 0


def test_a_view_gives_what_a_model_of_these_layers_gives():
    model = MODELS["llama"]
    shorter = copy.deepcopy(model)
    shorter.model.layers = shorter.model.layers[:1]
    shorter.model.config.num_hidden_layers = 1
    ids = torch.tensor([[1, 2, 3]])
    torch.testing.assert_close(first_layers(model, 1)(ids).logits, shorter(ids).logits)


def test_what_it_drafts_is_what_the_first_layers_say():
    """At every step but the first, where the model has read all there is."""
    model, drafts = MODELS["llama"], []
    view = first_layers(model, 1)

    class Spy:
        def draft(self, batch, lengths, pick):
            branch = batch.branch(view, 1)
            if branch is not None:
                texts = [row.since(0) for row in batch.rows]
                whole = [view(torch.tensor([text])).logits[0, -1] for text in texts]
                drafts.append((branch.logits([[] for _ in texts]), torch.stack(whole)))
                again = branch.logits([[2]] * len(texts))
                whole = [view(torch.tensor([[*text, 2]])).logits[0, -1] for text in texts]
                drafts.append((again, torch.stack(whole)))
            return [[] for _ in lengths]

    run(model, strategy="assisted", drafter=Spy(), adaptive=False, eos_token_id=None)
    assert len(drafts) > 10
    for branch, whole in drafts:
        torch.testing.assert_close(branch, whole.detach(), rtol=0, atol=1e-9)


def test_the_model_is_as_it_was_also_after_an_error():
    model = MODELS["llama"]
    before = [id(layer) for layer in model.model.layers], model.config.to_dict(), len(model.model.layers)

    class BrokenError(RuntimeError):
        pass

    def fail(input_ids, scores):
        raise BrokenError

    with pytest.raises(BrokenError):
        run(model, assistant_early_exit=1, stopping_criteria=[fail])
    assert (
        [id(layer) for layer in model.model.layers],
        model.config.to_dict(),
        len(model.model.layers),
    ) == before


def test_a_model_without_layers_is_refused():
    with pytest.raises(dk.ParameterError, match="MarkovModel shows none"):
        run(MarkovModel.random(7, eos_token_id=2), assistant_early_exit=1)


def test_a_model_with_accelerates_hooks_drafts_as_without():
    model = tiny_llama(7, seed=3)
    arguments = {"strategy": "assisted", "assistant_early_exit": 1, "adaptive": False}
    expected = run(model, **arguments)
    accelerate.dispatch_model(model, {"": "cpu"}, force_hooks=True)
    calls = []
    model.model.layers[1].register_forward_hook(lambda *_: calls.append(1))
    first_layers(model, 1)(torch.tensor([[1, 2, 3]]))
    assert not calls
    output = run(model, **arguments)
    assert torch.equal(output.sequences, expected.sequences)
    assert (output.stats.drafted, output.stats.accepted) == (expected.stats.drafted, expected.stats.accepted)


@pytest.mark.parametrize("part", ["decoder", "model"])
def test_a_forward_that_was_replaced_is_refused(part):
    model = tiny_llama(7, seed=3)
    changed = model.model if part == "decoder" else model
    forward = changed.forward
    changed.forward = lambda *args, **keywords: forward(*args, **keywords)
    with pytest.raises(dk.ParameterError, match=f"as that of this {type(changed).__name__} was"):
        run(model, assistant_early_exit=1)


def test_the_kit(profile):
    check_drafter(EarlyExit(1, 0.1), target=MODELS["llama"], profile=profile)
