"""`generate`: the drop-in for transformers' ``model.generate``."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from decodekit.call import Call, Options, prepare
from decodekit.errors import UnsupportedArgumentError
from decodekit.outputs import GenerateOutput

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["generate"]


def generate(
    model: "PreTrainedModel",
    inputs: Tensor | None = None,
    generation_config: GenerationConfig | None = None,
    logits_processor: Sequence[Any] | None = None,
    stopping_criteria: Sequence[Any] | None = None,
    prefix_allowed_tokens_fn: Callable[[int, Tensor], list[int]] | None = None,
    synced_gpus: bool | None = None,
    assistant_model: "PreTrainedModel | None" = None,
    streamer: Any = None,
    negative_prompt_ids: Tensor | None = None,
    negative_prompt_attention_mask: Tensor | None = None,
    custom_generate: Any = None,
    *,
    strategy: Any = None,
    processors: Sequence[Any] | None = None,
    seed: int | Sequence[int] | None = None,
    tokenizer: Any = None,
    **kwargs: Any,
) -> Tensor | GenerateOutput:
    """Decode text from a model of transformers, with parts that anyone can install.

    The positional arguments and every further keyword mean what they mean to ``model.generate`` and
    have the same defaults. Some numbers may be lists with a value for each prompt: temperature,
    top_k, top_p, min_p, typical_p, epsilon_cutoff, eta_cutoff, top_h, repetition_penalty,
    no_repeat_ngram_size, min_new_tokens. A temperature of 0 is greedy decoding.

    Args:
        model: a decoder-only model, quantized or not; it is left as it was.
        inputs: int64 [B, T], the prompts, padded on the left; or as ``input_ids=`` with ``attention_mask=``.
        generation_config: used as it is where no keyword says otherwise.
        logits_processor: processors of transformers, ``(input_ids, scores) -> scores``.
        stopping_criteria: criteria of transformers, ``(input_ids, scores) -> bool [B]``.
        prefix_allowed_tokens_fn: ``(batch_id, input_ids [T]) -> token ids``, all that may come next.
        synced_gpus: not supported by this version.
        assistant_model: a smaller model with the same vocabulary, which drafts for the strategy ``assisted``.
        streamer: an object with ``put(tokens)`` and ``end()``; gets the prompt, then each token.
        negative_prompt_ids: not supported by this version.
        negative_prompt_attention_mask: not supported by this version.
        custom_generate: not supported by this version; see ``strategy``.
        strategy: a name (see `decodekit.strategies`), a pair ``(name, {parameter: value})``, a class or
            an instance. Left out, the configuration decides as in transformers.
        processors: the whole chain in its order; each item a name, a pair ``(name, {parameter: value})``,
            a class or an instance of `Processor`. Left out, the configuration decides.
        seed: positional randomness: a prompt's tokens are a function of its seed alone, whatever it is
            batched with. A list has one a prompt. Left out, torch's global generator is consumed as
            transformers consumes it.
        tokenizer: needed by ``stop_strings`` and by some processors.
        **kwargs: fields of the generation configuration, parameters of the strategy, and the model's inputs.

    Returns:
        int64 [B * num_return_sequences, T + N]: prompts and continuations, padded on the right; with
        ``return_dict_in_generate=True`` a `GenerateOutput`.

    Raises:
        UnsupportedArgumentError: something that this version does not do, by its name.
        ParameterError: a value that is not allowed, or a combination that contradicts itself.
        UnknownNameError: no installed plugin has the name.
        CapabilityError: the strategy needs what the model's cache can't do.
        NonFiniteLogitsError: the model's logits of a row were NaN or infinite.
        EmptySupportError: the chain left a row without any token.
    """
    _refuse(
        synced_gpus=synced_gpus,
        negative_prompt_ids=negative_prompt_ids,
        negative_prompt_attention_mask=negative_prompt_attention_mask,
        custom_generate=custom_generate,
        **{name: kwargs.pop(name) for name in ("assistant_tokenizer", "trust_remote_code") if name in kwargs},
    )
    options = Options(
        strategy=strategy,
        processors=processors,
        seed=seed,
        tokenizer=tokenizer,
        assistant_model=assistant_model,
        logits_processor=logits_processor or (),
        stopping_criteria=stopping_criteria or (),
        prefix_allowed_tokens_fn=prefix_allowed_tokens_fn,
    )
    call = prepare(model, inputs, generation_config, kwargs, options)
    with _streaming(streamer, call) as put:
        for _ in call.steps():
            put()
        put()
    output = call.result()
    return output if call.request.config.return_dict_in_generate else output.sequences


def _refuse(**arguments: Any) -> None:
    for name, value in arguments.items():
        if value is not None and value is not False:
            message = f"{name}= is not supported by this version of decodekit; leave it out"
            raise UnsupportedArgumentError(message)


@contextlib.contextmanager
def _streaming(streamer: Any, call: Call) -> Iterator[Callable[[], None]]:
    """A function that gives the streamer what is new; the streamer is ended once, after an error too."""
    if streamer is None:
        yield lambda: None
        return
    copies = call.request.config.num_return_sequences or 1
    shown = 0

    def put() -> None:
        nonlocal shown
        rows = call.final()
        ready = min(
            (len(row.tokens) for row in rows if row.reason is None),
            default=max(len(row.tokens) for row in rows),
        )
        for step in range(shown, ready):
            streamer.put(torch.tensor([_token(row.tokens, step, call.request.pad_token_id) for row in rows]))
        shown = ready

    try:
        streamer.put(call.request.input_ids.repeat_interleave(copies, dim=0).cpu())
        yield put
    finally:
        streamer.end()


def _token(tokens: Sequence[int], step: int, pad_token_id: int) -> int:
    return tokens[step] if step < len(tokens) else pad_token_id
