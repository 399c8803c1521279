"""Bad words: sequences of tokens that are never completed."""

from typing import ClassVar

import attrs
from decodekit import CallContext, History, Laws, ParameterError, Phase, Place, Processor, param
from torch import Tensor

from decodekit_processors._sequences import Endings, bias_of, endings
from decodekit_processors._token_ids import check_ids

__all__ = ["BadWordsIds"]


@attrs.frozen
class BadWordsIds(Processor):
    """Forbid the last token of each bad word wherever the row ends with the tokens before it.

    A word of one token is forbidden everywhere; one that is an EOS id of the call is allowed all the same.

    Source: transformers, the argument of that name.
    Range: bad_words_ids holds sequences of token ids in [0, V), each of one or more.
    Shape: logits [B, V] -> [B, V].
    Keeps: every token that completes no bad word.
    Raises: ParameterError when there is no word, or one is empty or holds an id that is no token's.
    """

    NAME: ClassVar[str] = "bad_words_ids"
    LAWS: ClassVar[Laws] = Laws(
        shift_invariant=True,
        keeps_order=True,
        keeps_ratios=True,
        idempotent=True,
        commutes_with_temperature=True,
        may_empty=True,
    )
    PLACE: ClassVar[Place] = Place(phase=Phase.MASK)

    bad_words_ids: tuple[tuple[int, ...], ...] = param(
        help="Lists of token ids, e.g. [[10, 45], [7]]; of a word with and without a space in front of it."
    )
    _eos: tuple[int, ...] = ()
    _groups: tuple[Endings, ...] = attrs.field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        if not self.bad_words_ids or not all(self.bad_words_ids):
            message = (
                f"bad_words_ids={self.bad_words_ids!r} is not allowed: give at least one word, each with at "
                "least one token id"
            )
            raise ParameterError(message)
        check_ids(self.NAME, (token for word in self.bad_words_ids for token in word))
        ends = {(token,) for token in self._eos}
        words = {word: float("-inf") for word in self.bad_words_ids if word not in ends}
        object.__setattr__(self, "_groups", endings(words))

    def bind(self, context: CallContext) -> "BadWordsIds":
        """Return the processor that spares the EOS ids of the call."""
        check_ids(self.NAME, (token for word in self.bad_words_ids for token in word), context.vocab_size)
        return attrs.evolve(self, eos=context.eos_token_ids)

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Return the logits with -inf for the tokens that would complete a bad word."""
        return logits + bias_of(logits, history, self._groups)
