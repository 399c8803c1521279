"""`generate_batch` and `stream_batch`: a list of prompts, as many at a time as a batch holds."""

from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor
from transformers import GenerationConfig

from decodekit.batch_items import Item
from decodekit.batch_results import PromptResult
from decodekit.batch_run import BatchRun
from decodekit.call import Options
from decodekit.custom_generate import strategy_of
from decodekit.drop_in import has_own_generate
from decodekit.errors import DecodekitError, ParameterError, UnsupportedArgumentError, nearest
from decodekit.jobs import Job, Setup, read_jobs
from decodekit.params import params_of
from decodekit.registry import registry
from decodekit.transformers_hooks import check_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["generate_batch", "stream_batch"]


def generate_batch(
    model: "PreTrainedModel", tokenizer: Any, prompts: Sequence[Any], **arguments: Any
) -> list[PromptResult]:
    """Decode a list of prompts of any length; the results are in its order.

    The arguments are those of `stream_batch`, which gives each result as soon as it is there.
    """
    return sorted(stream_batch(model, tokenizer, prompts, **arguments), key=lambda result: result.index)


def stream_batch(
    model: "PreTrainedModel",
    tokenizer: Any,
    prompts: Sequence[Any],
    *,
    batch_size: int = 16,
    strategy: Any = None,
    processors: Any = None,
    seed: int | Sequence[int] | None = None,
    token_logprobs: bool = False,
    skip_special_tokens: bool = True,
    errors: Literal["raise", "keep"] = "raise",
    compile: bool | None = None,
    **kwargs: Any,
) -> Generator[PromptResult, None, None]:
    """Decode a list of prompts of any length, and give the result of each as soon as it is there.

    Each prompt gets what a call of `generate` with it alone gets, whatever the list, its order and the batch
    size. The longest start first. Where the strategy allows it (``Strategy.ADMITS``), prompts join the
    running batch as others end; otherwise prompts of alike length are decoded batch by batch.

    Everything is checked when this function is called; the model runs as the iterator is read.

    Args:
        model: as for `generate`.
        tokenizer: the model's.
        prompts: each a text, a chat (a list of messages), token ids int64 [T], or a mapping with ``prompt``
            or ``messages`` and, if it likes, ``id``, ``seed``, and values of the configuration's fields.
        batch_size: the most prompts at a time; each has as many rows as the strategy needs.
        strategy, processors, compile: as for `generate`.
        seed: one for all prompts, or a list with one for each. Left out, prompts whose tokens are drawn get
            seeds from torch's global generator, one each in the order of the list.
        token_logprobs: keep the log-probabilities of the new tokens.
        skip_special_tokens: leave special tokens out of the texts.
        errors: what to do about a prompt that fails: "raise", or "keep" the error in its result and go on.
        **kwargs: as for `generate`, but for inputs of the model; lists with a value for each prompt may be
            those of `generate` and ``max_new_tokens``.

    Raises:
        ParameterError: a prompt or a value is not allowed; and what `generate` raises.
        UnsupportedArgumentError: an argument has no place in a list of prompts, by its name.
    """
    if has_own_generate(model):
        message = (
            f"{type(model).__name__} does more in generate than decode, so it takes no list of prompts: call "
            "decodekit.generate for each"
        )
        raise UnsupportedArgumentError(message)
    check_model(model)
    _check_arguments(tokenizer, prompts, batch_size, errors)
    custom, trusted = kwargs.pop("custom_generate", None), kwargs.pop("trust_remote_code", None)
    if custom is not None:
        strategy = strategy_of(custom, strategy=strategy, trust_remote_code=trusted)
    objects = {name: kwargs.pop(name) for name in _OBJECTS if name in kwargs}
    options = Options(
        strategy=strategy,
        tokenizer=tokenizer,
        compile=compile,
        logits_processor=kwargs.pop("logits_processor", None) or (),
        stopping_criteria=kwargs.pop("stopping_criteria", None) or (),
        keep_logprobs=token_logprobs,
        **objects,
    )
    config = kwargs.pop("generation_config", None)
    known = _known(strategy)
    _refuse(kwargs, known)
    failed: list[PromptResult] = []

    def fail(index: int, item: Item | None, error: Exception) -> None:
        if errors == "raise":
            raise _placed(error, index) from error
        known = {"id": item.id, "prompt_tokens": len(item.ids)} if item is not None else {}
        failed.append(PromptResult(index=index, error=error, **known))

    setup = Setup(model=model, config=config, common=kwargs, options=options)
    jobs = read_jobs(setup, list(prompts), known, processors, seed, fail)
    run = BatchRun(
        setup=setup,
        batch_size=batch_size,
        keep_errors=errors == "keep",
        skip_special_tokens=skip_special_tokens,
    )
    return _results(failed, run, jobs)


def _results(
    failed: list[PromptResult], run: BatchRun, jobs: list[Job]
) -> Generator[PromptResult, None, None]:
    yield from failed
    yield from run.results(jobs)


def _placed(error: Exception, index: int) -> Exception:
    """The error with the place of the prompt."""
    if isinstance(error, DecodekitError):
        return type(error)(f"prompts[{index}]: {error}")
    error.add_note(f"in prompts[{index}]")
    return error


_OBJECTS = ("assistant_model", "assistant_tokenizer", "negative_prompt_ids", "negative_prompt_attention_mask")
_REFUSED = {
    "prefix_allowed_tokens_fn": "is told a prompt by its row, which changes: use a processor, such as regex",
    "streamer": "shows one call: read decodekit.stream_batch",
    "synced_gpus": "needs the same forward passes in every process: call decodekit.generate",
    "token_healing": "changes prompts one by one: call decodekit.generate",
    "past_key_values": "belongs to one call: call decodekit.generate",
    **dict.fromkeys(
        (
            "return_dict_in_generate",
            "output_scores",
            "output_logits",
            "output_attentions",
            "output_hidden_states",
        ),
        "is about the output of one call: call decodekit.generate, or ask for token_logprobs=True",
    ),
}
"""Arguments of generate that have no place in a list of prompts, and what to do."""


def _check_arguments(tokenizer: Any, prompts: Any, batch_size: Any, errors: Any) -> None:
    if not callable(getattr(tokenizer, "decode", None)):
        message = (
            f"tokenizer is a {type(tokenizer).__name__}: the model's tokenizer is the second argument: "
            "generate_batch(model, tokenizer, prompts)"
        )
        raise ParameterError(message)
    if isinstance(prompts, (str, Mapping)) or not isinstance(prompts, (Sequence, Tensor)):
        message = f"prompts is a {type(prompts).__name__}: give a list of prompts, also for a single one"
        raise ParameterError(message)
    if type(batch_size) is not int or batch_size < 1:
        message = f"batch_size={batch_size!r} is not allowed: batch_size must be int in [1, inf)"
        raise ParameterError(message)
    if errors not in ("raise", "keep"):
        message = f"errors={errors!r} is not allowed: errors must be 'raise' or 'keep'"
        raise ParameterError(message)


def _known(strategy: Any) -> set[str]:
    """The names of values that a prompt may have of its own: those of the configuration and the strategy."""
    what = strategy[0] if isinstance(strategy, (tuple, list)) and strategy else strategy
    cls = registry().entry("strategies", what).cls if isinstance(what, str) else what
    own = params_of(cls if isinstance(cls, type) else type(cls)) if cls is not None else {}
    return {*GenerationConfig().to_dict(), *own} - _REFUSED.keys()


def _refuse(kwargs: Mapping[str, Any], known: Iterable[str]) -> None:
    for name, value in kwargs.items():
        if name in _REFUSED and not (value is None or value is False):
            message = f"{name}={value!r} {_REFUSED[name]}"
            raise UnsupportedArgumentError(message)
        if name not in known and name not in _REFUSED:
            message = f"{name} is an argument of neither generate_batch nor the strategy."
            from decodekit.load import of_load  # not above: it takes long, and nobody needs it but errors

            raise UnsupportedArgumentError(message + (of_load(name) or nearest(name, sorted(known))))
