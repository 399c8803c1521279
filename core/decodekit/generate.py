"""`generate`: the drop-in for transformers' ``model.generate``."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from decodekit.arguments import check_streamer
from decodekit.call import Call, Options, prepare
from decodekit.custom_generate import CustomLoop, custom_of
from decodekit.drop_in import has_own_generate, through_own_generate
from decodekit.errors import UnsupportedArgumentError
from decodekit.outputs import AnyOutput

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["generate", "run"]


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
    processors: Any = None,
    seed: int | Sequence[int] | None = None,
    tokenizer: Any = None,
    compile: bool | None = None,
    **kwargs: Any,
) -> Tensor | AnyOutput:
    """Decode text from a model of transformers, with parts that anyone can install.

    The positional arguments and every further keyword mean what they mean to ``model.generate`` and
    have the same defaults. Every field that puts a processor into the chain may be a list with a value for
    each prompt, such as ``temperature=[0.2, 1.0]``; None is none. A temperature of 0 is greedy decoding.

    Args:
        model: any model of transformers that generates tokens, quantized or not; it is left as it was. One
            that wraps ``generate`` (Whisper, BLIP-2, a PEFT model) does so here too.
        inputs: int64 [B, T], the prompts, padded on the left; or as ``input_ids=`` with ``attention_mask=``.
            Of an encoder-decoder model, what its encoder starts from. Token ids, masks and position ids may
            be lists or numpy arrays as well.
        generation_config: used as it is where no keyword says otherwise.
        logits_processor: processors of transformers, ``(input_ids, scores) -> scores``.
        stopping_criteria: criteria of transformers, ``(input_ids, scores) -> bool [B]``.
        prefix_allowed_tokens_fn: ``(batch_id, input_ids [T]) -> token ids``, all that may come next.
        synced_gpus: keep running the model until every process of torch.distributed is done; left out, as
            transformers decides it (ZeRO-3, FSDP).
        assistant_model: a smaller model, which drafts for the strategy ``assisted``. If it has another
            vocabulary, give ``tokenizer`` and ``assistant_tokenizer`` as well.
        streamer: an object with ``put(tokens)`` and ``end()``; gets the prompt, then each token. ``end`` is
            called once, after an error too.
        negative_prompt_ids: int64 [B, T] or [1, T], what ``guidance_scale`` leads away from; left out, the
            last token of each prompt.
        negative_prompt_attention_mask: of the same shape, 1 where they are tokens and 0 elsewhere.
        custom_generate: code that says how to decode: ``"package.module"``, ``"package.module:name"``, a
            function of transformers' kind, a `Strategy`, a folder or a hub id (with
            ``trust_remote_code=True``). A function or a repository runs instead of our own loop, and
            gives what it gives.
        strategy: a name (see `decodekit.strategies`), a pair ``(name, {parameter: value})``, a class or
            an instance. Left out, the configuration decides as in transformers.
        processors: the whole chain in its order; each item a name, a pair ``(name, {parameter: value})``,
            a class or an instance of `Processor`. Or its text, ``"top_k=50 > min_p=0.05"``, a `Chain`, or
            a list with a chain for each prompt. Left out, the configuration decides. Beside a chain, what
            the model's own configuration sets for one has no effect, and what the call sets is refused.
        seed: positional randomness: a prompt's tokens are a function of its seed alone, whatever it is
            batched with. A list has one a prompt. Left out, torch's global generator is consumed as
            transformers consumes it.
        tokenizer: needed by ``stop_strings`` and by some processors.
        compile: run passes of a few tokens as compiled kernels (on a CPU, dense decoder-only models). The
            first use compiles them, a quarter of a minute each, and keeps them on disk. On an accelerator,
            passes of one token a row run as graphs over a static cache. Where it can't be, a warning says
            why, and the model runs as it is. Left out, what `decodekit.load` was asked for.
        **kwargs: fields of the generation configuration, parameters of the strategy, and the model's inputs.

    Returns:
        int64 [B * num_return_sequences, T + N]: prompts and continuations, padded on the right; with
        ``return_dict_in_generate=True`` one of the output classes of `decodekit.outputs`, which are
        transformers' with three more fields.

    Raises:
        UnsupportedArgumentError: something that this version does not do, by its name.
        ParameterError: a value that is not allowed, or a combination that contradicts itself.
        UnknownNameError: no installed plugin has the name.
        CapabilityError: the strategy needs what the model's cache can't do.
        NonFiniteLogitsError: the model's logits of a row were NaN or infinite.
        EmptySupportError: the chain left a row without any token.
    """
    named = {
        "inputs": inputs,
        "generation_config": generation_config,
        "logits_processor": logits_processor,
        "stopping_criteria": stopping_criteria,
        "prefix_allowed_tokens_fn": prefix_allowed_tokens_fn,
        "synced_gpus": synced_gpus,
        "assistant_model": assistant_model,
        "streamer": streamer,
        "negative_prompt_ids": negative_prompt_ids,
        "negative_prompt_attention_mask": negative_prompt_attention_mask,
        "custom_generate": custom_generate,
    }
    ours = {"strategy": strategy, "processors": processors, "seed": seed, "compile": compile}
    if has_own_generate(model):
        result: Tensor | AnyOutput = through_own_generate(
            model, {**named, "tokenizer": tokenizer, **kwargs}, ours
        )
        return result
    return run(model, named, {**ours, "tokenizer": tokenizer}, kwargs)


def run(
    model: "PreTrainedModel", named: Mapping[str, Any], ours: Mapping[str, Any], kwargs: dict[str, Any]
) -> Tensor | AnyOutput:
    """Run a call of generate.

    Args:
        model: the model, as ``self``.
        named: transformers' own arguments by name.
        ours: strategy, processors, seed, tokenizer, compile.
        kwargs: the further keywords.
    """
    check_streamer(named["streamer"])
    custom = custom_of(named, ours, kwargs)
    if isinstance(custom, CustomLoop):
        return custom.run(model, {**named, **ours}, kwargs)  # type: ignore[no-any-return]  # its own result
    ours = {**ours, "strategy": ours["strategy"] if custom is None else custom}
    with _ending(named["streamer"]):
        call = _prepare(model, named, ours, kwargs)
        put = _putter(named["streamer"], call)
        for _ in call.steps():
            put()
        put()
    output = call.result()
    return output if call.request.config.return_dict_in_generate else output.sequences


def _prepare(
    model: "PreTrainedModel", named: Mapping[str, Any], ours: Mapping[str, Any], kwargs: dict[str, Any]
) -> Call:
    if kwargs.pop("trust_remote_code", None):
        message = "trust_remote_code=True has no effect without custom_generate=: leave it out"
        raise UnsupportedArgumentError(message)
    same = ("assistant_model", "prefix_allowed_tokens_fn", "synced_gpus", "negative_prompt_ids")
    options = Options(
        **ours,
        **{name: named[name] for name in same},
        negative_prompt_attention_mask=named["negative_prompt_attention_mask"],
        assistant_tokenizer=kwargs.pop("assistant_tokenizer", None),
        logits_processor=named["logits_processor"] or (),
        stopping_criteria=named["stopping_criteria"] or (),
    )
    return prepare(model, named["inputs"], named["generation_config"], kwargs, options)


@contextlib.contextmanager
def _ending(streamer: Any) -> Iterator[None]:
    """The streamer is ended once, after an error too: its reader would wait for ever."""
    try:
        yield
    finally:
        if streamer is not None:
            streamer.end()


def _putter(streamer: Any, call: Call) -> Callable[[], None]:
    """Give the streamer the prompt; returns a function that gives it what is new."""
    if streamer is None:
        return lambda: None
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

    streamer.put(call.request.input_ids.repeat_interleave(copies, dim=0).cpu())
    return put


def _token(tokens: Sequence[int], step: int, pad_token_id: int) -> int:
    return tokens[step] if step < len(tokens) else pad_token_id
