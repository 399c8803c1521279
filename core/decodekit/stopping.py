"""When a row ends: the one place where committed blocks are trimmed (law 7)."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor
from transformers import EosTokenCriteria, MaxLengthCriteria, MaxTimeCriteria, StopStringCriteria

from decodekit.errors import ParameterError

if TYPE_CHECKING:
    from decodekit.request import Request
    from decodekit.row import Row

__all__ = ["StopRules"]


@attrs.define(eq=False, kw_only=True)
class StopRules:
    """The stopping rules of a call.

    Attributes:
        max_new_tokens: the most generated tokens of a row.
        eos_token_ids: a row ends with the first of these, which it keeps.
        stop_strings: a row ends with the token that completes one of these texts.
        tokenizer: needed for ``stop_strings``.
        deadline: `time.monotonic` seconds after which every row ends with its next token.
        criteria: transformers' stopping criteria: ``(input_ids, None) -> bool or bool [B]``, where
            ``input_ids`` int64 [B, T] holds every row in its slot, those that have ended with padding.
        prompt_width: columns of the prompts, padding included.
        pad_token_id: what stands where a row has no token.
        device: where criteria expect ``input_ids``.
    """

    max_new_tokens: int
    eos_token_ids: frozenset[int] = frozenset()
    stop_strings: tuple[str, ...] = ()
    tokenizer: Any = None
    deadline: float | None = None
    criteria: tuple[Callable[..., Any], ...] = ()
    prompt_width: int = 0
    pad_token_id: int = 0
    device: torch.device | str = "cpu"

    @classmethod
    def of(cls, request: "Request", criteria: Sequence[Any], tokenizer: Any) -> "StopRules":
        """The rules of a configuration and of the caller's criteria.

        A criterion of transformers that the configuration brings as well takes its place.

        Raises:
            ParameterError: stop strings without a tokenizer.
        """
        config = request.config
        texts = [config.stop_strings] if isinstance(config.stop_strings, str) else config.stop_strings or ()
        if texts and tokenizer is None:
            message = f"stop_strings={config.stop_strings!r} needs tokenizer=...: pass the model's tokenizer"
            raise ParameterError(message)
        given = {type(criterion) for criterion in criteria}
        seconds = None if MaxTimeCriteria in given else config.max_time
        return cls(
            max_new_tokens=request.max_new_tokens,
            eos_token_ids=frozenset(() if EosTokenCriteria in given else request.eos_token_ids),
            stop_strings=() if StopStringCriteria in given else tuple(texts),
            tokenizer=tokenizer,
            deadline=time.monotonic() + seconds if seconds is not None else None,
            criteria=tuple(item for item in criteria if type(item) is not MaxLengthCriteria),
            prompt_width=request.input_ids.shape[1],
            pad_token_id=request.pad_token_id,
            device=request.input_ids.device,
        )

    def ends(
        self, rows: "Sequence[Row]", tokens: Sequence[int], ended: "Sequence[Row]" = ()
    ) -> list[str | None]:
        """Why each row ends with one more token; None where it does not. See `cuts`."""
        if self.stop_strings or self.deadline is not None or self.criteria:
            return self.cuts(rows, [[token] for token in tokens], ended)[1]
        eos, last = self.eos_token_ids, self.max_new_tokens - 1
        return [
            "eos" if token in eos else "length" if len(row.tokens) >= last else None
            for row, token in zip(rows, tokens, strict=True)
        ]

    def cut(self, row: "Row", block: Sequence[int]) -> tuple[list[int], str | None]:
        """The part of ``block`` that row keeps, and why it ends there, if it does."""
        kept: list[int] = []
        for token in block:
            kept.append(token)
            if token in self.eos_token_ids:
                return kept, "eos"
            if self.stop_strings and self._completes_stop_string(row, kept):
                return kept, "stop_string"
            if len(row.tokens) + len(kept) >= self.max_new_tokens:
                return kept, "length"
        if self.deadline is not None and time.monotonic() > self.deadline:
            return kept, "time"
        return kept, None

    def _completes_stop_string(self, row: "Row", kept: list[int]) -> bool:
        """Whether a stop string overlaps the last token, as transformers' StopStringCriteria has it.

        A token is at least one character of text or continues one, so the tail of as many tokens as
        the longest string has bytes holds every match.
        """
        longest = max(len(text.encode()) for text in self.stop_strings)
        new = row.tokens + kept
        tail = (row.prompt_tokens[-longest:] + new)[-longest - 1 :]
        before = self._text(tail[:-1])
        text = self._text(tail)
        return any(text.find(stop, max(len(before) - len(stop) + 1, 0)) >= 0 for stop in self.stop_strings)

    def _text(self, tokens: list[int]) -> str:
        text: str = self.tokenizer.decode(
            tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text.rstrip("�")

    def cuts(
        self, rows: "Sequence[Row]", blocks: Sequence[Sequence[int]], ended: "Sequence[Row]" = ()
    ) -> tuple[list[list[int]], list[str | None]]:
        """`cut` for every row, and after it the user's criteria, asked after each token of the blocks.

        Args:
            rows: the B rows.
            blocks: their new tokens.
            ended: the rows that have left, which criteria expect to see as well.

        Returns:
            What the rows keep, and why each ends; None where it does not.
        """
        cuts = [self.cut(row, block) for row, block in zip(rows, blocks, strict=True)]
        if self.criteria:
            self._ask(rows, cuts, ended)
        return [block for block, _ in cuts], [reason for _, reason in cuts]

    def _ask(
        self, rows: "Sequence[Row]", cuts: list[tuple[list[int], str | None]], ended: "Sequence[Row]"
    ) -> None:
        """Cut further where a criterion says so."""
        starts = [len(row.tokens) for row in rows]
        pairs = list(zip(starts, cuts, strict=True))
        for length in sorted({start + 1 + by for start, (block, _) in pairs for by in range(len(block))}):
            done = self._judged(rows, [block for block, _ in cuts], ended, length)
            for place, (block, reason) in enumerate(cuts):
                count = length - starts[place]
                if done[place] and 0 < count <= len(block) and not (reason and len(block) == count):
                    cuts[place] = (block[:count], "criterion")

    def _judged(
        self, rows: "Sequence[Row]", blocks: Sequence[list[int]], ended: "Sequence[Row]", length: int
    ) -> list[bool]:
        """What the criteria say of each of the rows after ``length`` new tokens.

        They see every row in its slot as it stood then: rows that are ahead would show their lead to the
        others, and a criterion on ``input_ids.shape[1]`` would end those too early.
        """
        prompts = max([self.prompt_width, *(len(row.prompt_tokens) for row in [*rows, *ended])])
        lines = []
        for row, block in zip([*rows, *ended], [*blocks, *([] for _ in ended)], strict=True):
            new = [*row.tokens, *block][:length]
            before = [self.pad_token_id] * (prompts - len(row.prompt_tokens))
            lines.append(before + row.prompt_tokens + new + [self.pad_token_id] * (length - len(new)))
        slots = [row.slot for row in [*rows, *ended]]
        order = sorted(range(len(slots)), key=slots.__getitem__)
        input_ids = torch.tensor([lines[place] for place in order], device=self.device)
        done = torch.zeros(len(order), dtype=torch.bool)
        for criterion in self.criteria:
            done |= _answer(criterion, input_ids)
        answers = dict(zip(order, done.tolist(), strict=True))
        return [answers[place] for place in range(len(rows))]


def _answer(criterion: Callable[..., Any], input_ids: Tensor) -> Tensor:
    """What a criterion says of the rows: bool [B], or one for all."""
    answer = criterion(input_ids, None)
    try:
        done = torch.as_tensor(answer).cpu().bool()
    except (TypeError, ValueError, RuntimeError):
        done = torch.empty(2, 0)
    if done.shape not in ((), (1,), (len(input_ids),)):
        message = (
            f"stopping criterion {type(criterion).__name__} gave {answer!r} for {len(input_ids)} rows: it "
            "must give bool, or bool [rows]"
        )
        raise ParameterError(message)
    return done
