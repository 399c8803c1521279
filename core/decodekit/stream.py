"""`stream`: the same as `generate`, as an iterator of events."""

from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor

from decodekit.call import Call, Options, prepare
from decodekit.chats import is_chat, template_ids
from decodekit.custom_generate import strategy_of
from decodekit.drop_in import has_own_generate
from decodekit.errors import ParameterError, UnsupportedArgumentError
from decodekit.outputs import AnyOutput
from decodekit.transformers_hooks import check_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Event", "FinishedEvent", "ResultEvent", "TokenEvent", "stream"]

Prompt = str | Sequence[str] | Sequence[Mapping[str, Any]] | Tensor | Mapping[str, Any]


@attrs.frozen
class TokenEvent:
    """A committed token; it is never taken back.

    Attributes:
        row: place in the result.
        token: its id.
        text: what the row's text grows by; empty while a character is incomplete.
        logprob: under the processed distribution.
    """

    row: int
    token: int
    text: str
    logprob: float


@attrs.frozen
class FinishedEvent:
    """A row has ended.

    Attributes:
        row: place in the result.
        reason: "eos", "length", "stop_string", "time" or "criterion".
        text: what was still held back of the row's text.
    """

    row: int
    reason: str
    text: str


@attrs.frozen
class ResultEvent:
    """The last event: the output of the whole call."""

    output: AnyOutput


Event = TokenEvent | FinishedEvent | ResultEvent


def stream(
    model: "PreTrainedModel",
    tokenizer: Any,
    prompt: Prompt,
    *,
    strategy: Any = None,
    processors: Any = None,
    seed: int | Sequence[int] | None = None,
    skip_special_tokens: bool = True,
    compile: bool | None = None,
    **kwargs: Any,
) -> Generator[Event, None, None]:
    """Decode, and say each token as soon as it is final.

    Everything is checked when this function is called; the model runs as the iterator is read, and stops
    when it is closed.

    Args:
        model: as for `generate`.
        tokenizer: the model's.
        prompt: a text, a list of texts, a chat (a list of messages, through the tokenizer's chat
            template), token ids int64 [T] or [B, T], or what the tokenizer returned: a mapping of
            tensors, arrays or lists, of one row or several.
        strategy, processors, seed, compile: as for `generate`.
        skip_special_tokens: leave special tokens out of the texts.
        **kwargs: as for `generate`, but for what the prompt holds.

    Raises:
        ParameterError: ``prompt`` is something else; and what `generate` raises.
        UnsupportedArgumentError: the model wraps ``generate`` in more than decoding, or ``custom_generate``
            has a loop of its own.
    """
    if has_own_generate(model):
        message = (
            f"{type(model).__name__} does more in generate than decode, so it can't be streamed as events: "
            "call decodekit.generate with streamer="
        )
        raise UnsupportedArgumentError(message)
    check_model(model)
    if not callable(getattr(tokenizer, "decode", None)):
        message = (
            f"tokenizer is a {type(tokenizer).__name__}: stream needs the model's tokenizer, as its second "
            "argument: stream(model, tokenizer, prompt)"
        )
        raise ParameterError(message)
    custom, trusted = kwargs.pop("custom_generate", None), kwargs.pop("trust_remote_code", None)
    if custom is not None:
        strategy = strategy_of(custom, strategy=strategy, trust_remote_code=trusted)
    _refuse_beside(kwargs)
    # an encoder may count positions from the first column
    inputs = _tokenize(tokenizer, prompt, "right" if model.config.is_encoder_decoder else "left")
    options = Options(
        strategy=strategy,
        processors=processors,
        seed=seed,
        tokenizer=tokenizer,
        logits_processor=kwargs.pop("logits_processor", None) or (),
        stopping_criteria=kwargs.pop("stopping_criteria", None) or (),
        prefix_allowed_tokens_fn=kwargs.pop("prefix_allowed_tokens_fn", None),
        compile=compile,
        keep_logprobs=True,
        **{name: kwargs.pop(name) for name in _OBJECTS if name in kwargs},
    )
    inputs = {name: value.to(model.device) for name, value in inputs.items()}
    call = prepare(model, None, kwargs.pop("generation_config", None), {**inputs, **kwargs}, options)
    return _events(call, tokenizer, skip_special_tokens)


_OBJECTS = (
    "assistant_model",
    "assistant_tokenizer",
    "negative_prompt_ids",
    "negative_prompt_attention_mask",
    "synced_gpus",
)
"""Further arguments that are neither fields of the configuration nor inputs of the model."""


def _refuse_beside(kwargs: Mapping[str, Any]) -> None:
    for name in ("inputs", "input_ids", "attention_mask", "inputs_embeds"):
        if kwargs.get(name) is not None:
            message = (
                f"{name}= has no place beside prompt, which says what to start from: leave one out, or give "
                'what the tokenizer returned as the prompt, {"input_ids": ..., "attention_mask": ...}'
            )
            raise ParameterError(message)


def _tokenize(tokenizer: Any, prompt: Prompt, side: str) -> dict[str, Tensor]:
    if isinstance(prompt, Mapping):
        return _as_tensors(prompt)
    if isinstance(prompt, Tensor):
        return {"input_ids": prompt if prompt.dim() > 1 else prompt[None]}
    if isinstance(prompt, str):
        return _keep_inputs(tokenizer(prompt, return_tensors="pt"))
    items = list(prompt) if isinstance(prompt, Sequence) else []
    if items and all(isinstance(item, str) for item in items):
        return _keep_inputs(tokenizer(items, return_tensors="pt", padding=True, padding_side=side))
    if is_chat(items):
        ids = torch.tensor([template_ids(items, tokenizer)])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    message = (
        f"prompt={prompt!r} is not allowed: it must be a text, a list of texts, a chat "
        '([{"role": "user", "content": "..."}]), token ids int64 [T] or [B, T], or a tokenizer\'s output'
    )
    raise ParameterError(message)


def _as_tensors(encoded: Mapping[str, Any]) -> dict[str, Tensor]:
    """What a tokenizer returned, in whatever form; a row alone is a batch of one."""
    tensors = {name: _as_tensor(name, value) for name, value in encoded.items() if value is not None}
    if "input_ids" in tensors and tensors["input_ids"].dim() == 1:
        return {name: value[None] if value.dim() == 1 else value for name, value in tensors.items()}
    return tensors


def _as_tensor(name: str, value: Any) -> Tensor:
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        message = (
            f"prompt[{name!r}]={value!r} is not allowed ({error}): it must be a tensor, an array or lists of "
            "numbers, with rows of one length (the tokenizer's padding=True); give a "
            "text itself as the prompt"
        )
        raise ParameterError(message) from error
    return tensor


def _keep_inputs(encoded: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {"input_ids": encoded["input_ids"].long(), "attention_mask": encoded["attention_mask"]}


def _events(call: Call, tokenizer: Any, skip_special_tokens: bool) -> Generator[Event, None, None]:
    texts: dict[int, _Text] = {}
    for _ in call.steps():
        yield from _news(call, tokenizer, skip_special_tokens, texts)
    yield from _news(call, tokenizer, skip_special_tokens, texts)
    yield ResultEvent(call.result())


def _news(
    call: Call, tokenizer: Any, skip_special_tokens: bool, texts: "dict[int, _Text]"
) -> Generator[Event, None, None]:
    """What has become final since the last time."""
    for place, row in enumerate(call.final()):
        text = texts.setdefault(place, _Text(tokenizer, skip_special_tokens))
        for step in range(text.count, len(row.tokens)):
            yield TokenEvent(place, row.tokens[step], text.add(row.tokens[step]), row.logprobs[step])
        if row.reason and not text.ended:
            text.ended = True
            yield FinishedEvent(place, row.reason, text.rest())


class _Text:
    """The text of a growing row, said in pieces that never change: a character waits until it is whole."""

    def __init__(self, tokenizer: Any, skip_special_tokens: bool) -> None:
        self._tokenizer = tokenizer
        self._skip = skip_special_tokens
        self._ids: list[int] = []
        self._start = 0  # the window that is decoded again starts here, before the last whole piece
        self._said = 0
        self.ended = False

    @property
    def count(self) -> int:
        """How many tokens were added."""
        return len(self._ids)

    def add(self, token: int) -> str:
        """The text that the token adds."""
        self._ids.append(token)
        piece = self._pending()
        if not piece or piece.endswith("�"):
            return ""
        self._start, self._said = self._said, len(self._ids)
        return piece

    def rest(self) -> str:
        """What is still held back, once the row has ended."""
        return self._pending()

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=self._skip)
        return text

    def _pending(self) -> str:
        before = self._decode(self._ids[self._start : self._said])
        return self._decode(self._ids[self._start :])[len(before) :]
