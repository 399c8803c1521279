"""A row's text in the tokens of another tokenizer, kept up to date as the row grows."""

import itertools
from collections.abc import Sequence
from typing import Any

import attrs
from decodekit import CallContext, ParameterError, Row

__all__ = ["Translator", "continued"]

_KEY = "translated"


@attrs.frozen
class Translator:
    """Between the target's tokenizer and an assistant's, by way of text.

    Attributes:
        target, assistant: the tokenizers.
        lookbehind: how many of the target's last tokens are converted again, as tokens may merge.
    """

    target: Any
    assistant: Any
    lookbehind: int

    @classmethod
    def of(cls, drafter: str, context: CallContext, assistant: Any, lookbehind: int) -> "Translator":
        """The translator of a call.

        Raises:
            ParameterError: the call has no tokenizer.
        """
        if context.tokenizer is None or assistant is None:
            message = (
                f"the drafter {drafter!r} goes by way of text: give tokenizer=<the model's> and "
                "assistant_tokenizer=<the assistant's>"
            )
            raise ParameterError(message)
        return cls(context.tokenizer, assistant, lookbehind)

    def tokens_of(self, row: Row) -> list[int]:
        """The row's tokens in the assistant's vocabulary, at least one."""
        count, known = row.memo.get(_KEY, (0, ()))
        own = list(known)
        if count < row.length:
            start = max(count - self.lookbehind, 0)
            before = encode(self.assistant, decode(self.target, row.since(start)[: count - start]))
            after = encode(self.assistant, decode(self.target, row.since(start)))
            own = continued(own, before, after) if known else []
            own = own or encode(self.assistant, decode(self.target, row.since(0)), first=True)
        own = own or [_begin(self.assistant)]
        row.memo[_KEY] = (row.length, tuple(own))
        return own


def continued(known: Sequence[int], before: Sequence[int], after: Sequence[int]) -> list[int]:
    """``known`` as it goes on when the tokens of its last text change from ``before`` to ``after``.

    Empty when ``known`` does not end with the part of ``before`` that changes.
    """
    pairs = zip(before, after, strict=False)
    same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
    start = len(known) - (len(before) - same)
    if start < 0 or list(known[start:]) != list(before[same:]):
        return []
    return [*known[:start], *after[same:]]


def decode(tokenizer: Any, tokens: Sequence[int]) -> str:
    """The text of tokens, without special ones."""
    text: str = tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text


def encode(tokenizer: Any, text: str, *, first: bool = False) -> list[int]:
    """The tokens of a text; the ``first`` of a row may begin with special ones."""
    tokens: list[int] = tokenizer(text, add_special_tokens=first)["input_ids"]
    return tokens


def _begin(tokenizer: Any) -> int:
    """What a text without any token begins with."""
    special = (tokenizer.bos_token_id, tokenizer.eos_token_id, 0)
    return next(token for token in special if token is not None)
