"""Small parts that a strategy is tried with: processors of every sort, and a tokenizer of bytes."""

from collections.abc import Sequence
from random import Random
from typing import ClassVar

import attrs
import torch
from torch import Tensor

from decodekit.history import History
from decodekit.params import param
from decodekit.processor import Processor, StatefulProcessor

__all__ = [
    "Bytes",
    "Damp",
    "Heat",
    "Interruption",
    "InterruptionError",
    "NotAgain",
    "Tire",
    "Top",
    "random_chain",
]


@attrs.frozen
class Heat(Processor):
    """Divide the logits by a temperature."""

    NAME: ClassVar[str] = "kit_heat"
    t: float = param(0.7, range="(0, inf)", help="The temperature.")

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """A row's logits alone decide."""
        return logits / self.t


@attrs.frozen
class Top(Processor):
    """Keep the ``k`` largest logits, and what ties with the last of them."""

    NAME: ClassVar[str] = "kit_top"
    k: int = param(2, range="[1, inf)", help="How many are kept.")

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """A row's logits alone decide."""
        least = logits.topk(min(self.k, logits.shape[-1])).values[:, -1:]
        return logits.masked_fill(logits < least, -torch.inf)


@attrs.frozen
class Damp(Processor):
    """Lower every token by 1.5 for each time that it was generated; the prompt doesn't count."""

    NAME: ClassVar[str] = "kit_damp"

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """The generated part of the history decides."""
        ids = history.tokens.clamp(max=logits.shape[-1] - 1)  # a prompt may hold ids that have no logit
        times = torch.zeros_like(logits).scatter_add(1, ids, history.generated_mask.to(logits))
        return logits - 1.5 * times


@attrs.frozen
class NotAgain(Processor):
    """Forbid the row's last token, unless no other one is possible."""

    NAME: ClassVar[str] = "kit_not_again"

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """The last token of the history decides, that of the prompt included."""
        last = torch.arange(logits.shape[-1]) == history.tokens[:, -1:]
        without = logits.masked_fill(last, -torch.inf)
        return torch.where(without.isneginf().all(-1, keepdim=True), logits, without)


@attrs.frozen
class Tire(StatefulProcessor[float]):
    """Flatten the distribution more, the more improbable the tokens were that were chosen."""

    NAME: ClassVar[str] = "kit_tire"

    def init(self, prompt: list[int]) -> float:
        """Fresh, whatever the prompt."""
        return 0.0

    def advance(self, state: float, token: int, logits: Tensor) -> float:
        """A function of the surprise of the token."""
        return state + min(-float(logits.log_softmax(-1)[token]), 3.0)

    def process(self, logits: Tensor, history: History, states: list[float]) -> Tensor:
        """The state of the row decides."""
        return logits / (1 + torch.tensor(states, dtype=logits.dtype))[:, None]


class InterruptionError(Exception):
    """What the kit raises in the middle of a call."""


@attrs.frozen
class Interruption(Processor):
    """Raise `InterruptionError` once a row has ``after`` generated tokens."""

    NAME: ClassVar[str] = "kit_interruption"
    after: int = param(range="[0, inf)", help="How many tokens are generated before it.")

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Nothing is changed until then."""
        if int(history.new_lengths.max()) >= self.after:
            message = f"planted after {self.after} tokens"
            raise InterruptionError(message)
        return logits


_ALL = (Heat(0.7), Heat(1.6), Top(1), Top(2), Top(3), Damp(), NotAgain(), Tire())


def random_chain(random: Random, least: int, most: int) -> tuple[Processor, ...]:
    """``least`` to ``most`` processors: of the logits alone, of the history, and with a state."""
    return tuple(random.choices(_ALL, k=random.randint(least, most)))


@attrs.frozen
class Bytes:
    """A tokenizer that decodes: pieces of one and two letters, and halves of characters.

    Attributes:
        pieces: token ``i`` is piece ``i`` modulo their number.
    """

    pieces: tuple[bytes, ...] = (b"a", b"b", b"ab", b"\xc3", b"\xa9", b"ba", b" ", b"\xe2\x82", b"\xac")

    def decode(
        self,
        tokens: Sequence[int],
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool = False,
    ) -> str:
        """The text of the tokens; an incomplete character is U+FFFD."""
        joined = b"".join(self.pieces[token % len(self.pieces)] for token in tokens)
        return joined.decode("utf-8", errors="replace")
