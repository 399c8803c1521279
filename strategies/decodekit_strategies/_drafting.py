"""How a call drafts: by what, how far each row, and whether it pays."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import attrs
from decodekit import (
    Batch,
    Distribution,
    Draft,
    Drafter,
    ParameterError,
    PluginError,
    Purpose,
    Row,
    resolve,
)
from torch import Tensor

from decodekit_strategies._economics import Economics
from decodekit_strategies.drafters.draft_model import DraftModel
from decodekit_strategies.drafters.early_exit import EarlyExit
from decodekit_strategies.drafters.multi_token import MultiToken
from decodekit_strategies.drafters.prompt_lookup import PromptLookup
from decodekit_strategies.drafters.universal import Universal
from decodekit_strategies.drafters.vocab_intersection import VocabIntersection

if TYPE_CHECKING:
    from decodekit_strategies.assisted import Assisted

__all__ = ["Drafting", "chosen_drafter"]

FIRST = 4
"""How many tokens a model drafts before anything is known of what that costs."""
STRETCH = 4
"""How many times longer than asked for a draft may get that costs nothing to make."""
SHADOW = 4
"""How many tokens of a draft that is not verified are compared with what comes instead."""
FADING = 0.85
"""How much an earlier draft of a row counts beside the next one."""

_ONLY_WITH: dict[str, tuple[str, Callable[["Assisted"], bool]]] = {
    "max_matching_ngram_size": (
        "prompt_lookup_num_tokens=",
        lambda assisted: assisted.prompt_lookup_num_tokens is not None,
    ),
    "assistant_lookbehind": (
        "assistant_tokenizer=",
        lambda assisted: assisted.assistant_tokenizer is not None,
    ),
    "target_lookbehind": (
        "assistant_tokenizer=",
        lambda assisted: assisted.assistant_tokenizer is not None,
    ),
    "typical_epsilon": ("verification='typical'", lambda assisted: assisted.rule == "typical"),
    "typical_delta": ("verification='typical'", lambda assisted: assisted.rule == "typical"),
}
"""What some parameters need to have an effect, in words and as a question."""


def chosen_drafter(assisted: "Assisted") -> Drafter:
    """What the parameters of the strategy name.

    Raises:
        ParameterError: nothing drafts, two things do, or a parameter would have no effect on what does.
    """
    _check_effects(assisted)
    makers: dict[str, Callable[[], Any]] = {
        "drafter": lambda: _resolve(assisted.drafter),
        "assistant_model": lambda: _assistant(assisted),
        "assistant_early_exit": lambda: EarlyExit(
            assisted.assistant_early_exit or 0, assisted.assistant_confidence_threshold
        ),
        "prompt_lookup_num_tokens": lambda: PromptLookup(assisted.max_matching_ngram_size),
        "use_mtp": MultiToken,
    }
    given = [name for name in makers if getattr(assisted, name) not in (None, False)]
    if assisted.assistant_tokenizer is not None and "assistant_model" not in given:
        message = "assistant_tokenizer= would have no effect without assistant_model=: leave it out"
        raise ParameterError(message)
    if len(given) != 1:
        found = f"{' and '.join(given)} are given" if given else "nothing is given"
        message = (
            f"strategy 'assisted' needs something that drafts, and {found}: give one of drafter=<a name of "
            "decodekit.drafters()>, assistant_model=<a smaller model>, assistant_early_exit=<layers>, "
            "prompt_lookup_num_tokens=<how many>, use_mtp=True, and not both"
        )
        raise ParameterError(message)
    drafter: Drafter = makers[given[0]]()
    return drafter


def _check_effects(assisted: "Assisted") -> None:
    """Refuse what is not the default where it would do nothing."""
    for name, (what, is_there) in _ONLY_WITH.items():
        value = getattr(assisted, name)
        if value == getattr(attrs.fields(type(assisted)), name).default or is_there(assisted):
            continue
        message = f"{name}={value!r} would have no effect without {what}: leave it out"
        if assisted.drafter is not None and not name.startswith("typical"):
            message += ", or give a drafter its own parameters: drafter=(name, {parameter: value})"
        raise ParameterError(message)


def _assistant(assisted: "Assisted") -> Drafter:
    """The drafter for an assistant model: of the same vocabulary, unless it brings a tokenizer."""
    model, tokenizer = assisted.assistant_model, assisted.assistant_tokenizer
    threshold = assisted.assistant_confidence_threshold
    if tokenizer is None:
        return DraftModel(model, threshold)
    if assisted.do_sample:
        return VocabIntersection(model, tokenizer, threshold, assisted.target_lookbehind)
    return Universal(model, tokenizer, threshold, assisted.assistant_lookbehind, assisted.target_lookbehind)


def _resolve(spec: Any) -> Any:
    """A drafter by name, pair, class or instance; any object with a method draft will do."""
    named = isinstance(spec, (str, tuple, list, type, Drafter))
    return resolve("drafters", spec) if named or not hasattr(spec, "draft") else _Guest(spec)


@attrs.frozen
class _Guest(Drafter):
    """An object with a method draft that is no subclass of `Drafter`."""

    guest: Any

    def draft(self, batch: Batch, lengths: Sequence[int], pick: Callable[[Distribution], Tensor]) -> Draft:
        """Ask it; a list of tokens for each row will do."""
        draft = self.guest.draft(batch, lengths, pick)
        return draft if isinstance(draft, Draft) else Draft(draft)


@attrs.define(eq=False)
class Drafting:
    """The drafting of one call."""

    strategy: "Assisted"
    economics: Economics = attrs.field(factory=Economics)
    _began: float = 0.0
    _started: float = 0.0
    _drafted: float = 0.0
    _ended: float = 0.0
    _last: tuple[int, float, float, float] | None = None
    _asked: list[int] = attrs.field(factory=list)
    _rows: int = 0
    _steps: int = 0
    _plain: int = 0
    _draft_seconds: float = 0.0
    _pass_seconds: float = 0.0
    _certain: set[int] = attrs.field(factory=set)

    def draft(self, batch: Batch, drafter: Drafter) -> Draft:
        """The draft that is to be verified: as long as it pays, and forced tokens in any case."""
        self._started = time.perf_counter()
        room = [batch.stops.max_new_tokens - len(row.tokens) - 1 for row in batch.rows]
        lengths = [min(self._scheduled(row), most) for row, most in zip(batch.rows, room, strict=True)]
        frugal = self.strategy.exact and self.strategy.adaptive
        asks = drafter.LAWS.reports_q or bool(drafter.models or drafter.foreign_models)
        cheap = self.economics.cheap if self._steps > 1 else not asks
        if frugal:
            self._note_last_step(len(batch.rows))
            for row in batch.rows:
                _compare_shadow(row)
        if frugal and cheap:
            lengths = [min(self._reach(length), most) for length, most in zip(lengths, room, strict=True)]
        elif frugal and not cheap:
            most = self.economics.advise(_rates(batch), lengths, room)
            most = min(most, FIRST) if self._steps < 2 else most
            lengths = [min(length, most) for length in lengths]
        draft = self._ask(batch, drafter, lengths)
        self._drafted = time.perf_counter()
        self._asked = list(lengths)
        if frugal and cheap:
            draft = self._worthwhile(batch, draft, room)
            self._asked = [len(block) for block in draft.tokens]
        return self._with_forced(batch, draft) if self.strategy.exact else draft

    def _reach(self, length: int) -> int:
        """How long a draft that costs nothing may be; no larger kernel is compiled for it."""
        if self.economics.filled is not None:
            return self.economics.size(length)
        return STRETCH * length if self._steps > 1 else length

    def _note_last_step(self, rows: int) -> None:
        """Note what the last step cost, with what was done to caches and rows after it; ``rows`` are left."""
        if self._last is not None and self._steps > 1:  # the first one had the prompt's help
            asked, drafting, verifying, tokens = self._last
            after = min(self._started - self._ended, verifying)  # a reader may have paused us
            self.economics.note(asked, drafting, verifying + after, tokens)
        if self.economics.filled is not None and rows != self._rows:
            self.economics.forget()
        self._rows = rows

    def _with_forced(self, batch: Batch, draft: Draft) -> Draft:
        """The draft, with what a processor forces in the place of what was drafted there."""
        forced = batch.forced() or [[] for _ in draft.tokens]
        self._certain = {row for row, block in enumerate(forced) if block}
        if not self._certain:
            return draft
        return Draft([block or other for block, other in zip(forced, draft.tokens, strict=True)])

    def _ask(self, batch: Batch, drafter: Drafter, lengths: Sequence[int]) -> Draft:
        if not any(lengths):
            return Draft([[] for _ in batch.rows])
        draft = drafter.draft(batch, lengths, self._pick(batch))
        _check(draft, drafter, batch, lengths, self.strategy.vocab_size)
        return draft

    def _pick(self, batch: Batch) -> Callable[[Distribution], Tensor]:
        if not self.strategy.do_sample:
            return Distribution.argmax
        purpose = Purpose.TOKEN if self.strategy.exact else Purpose.DRAFT
        return lambda q: batch.draw(q, purpose)

    def _scheduled(self, row: Row) -> int:
        """How many tokens a row drafts by transformers' schedule."""
        if self.strategy.num_assistant_tokens_schedule == "constant":
            return self.strategy.asked
        return max(1, min(self.strategy.asked, 5 + int(row.memo.get("right", 0))))

    def _worthwhile(self, batch: Batch, draft: Draft, room: Sequence[int]) -> Draft:
        """The part of a draft that pays; one that doesn't is compared with what comes instead."""
        most = self.economics.advise(_rates(batch), [len(block) for block in draft.tokens], room)
        for row, block in zip(batch.rows, draft.tokens, strict=True):
            if not most and block and "shadow" not in row.memo:
                row.memo["shadow"] = (len(row.tokens), tuple(block[:SHADOW]))
        return Draft([block[:most] for block in draft.tokens], draft.q[:most])

    def verified(self, batch: Batch, draft: Draft, kept: Sequence[int]) -> None:
        """Note what became of a draft."""
        now = time.perf_counter()
        longest = max(map(len, draft.tokens), default=0)
        for place, (row, block, n) in enumerate(zip(batch.rows, draft.tokens, kept, strict=True)):
            row.drafted += len(block)
            row.accepted += n
            if block and place not in self._certain:
                row.memo["right"] = row.memo.get("right", 0) + (2 if n == len(block) else -1)
                _remember(row, n, int(n < self._asked[place]))  # one that ends early fails, too
        drafting, verifying = self._drafted - self._started, now - self._drafted
        self._steps += 1
        self._plain += not longest
        self._draft_seconds += drafting
        self._pass_seconds += verifying
        asked = max(self._asked, default=0)
        self._last = (asked, drafting, verifying, 1 + sum(kept) / len(kept))
        self._ended = now
        batch.details.update(
            drafter=self.strategy._chosen.NAME,
            verification=self.strategy.rule if self.strategy.do_sample else "greedy",
            lossless=self.strategy.laws.lossless,
            steps=self._steps,
            steps_without_draft=self._plain,
            draft_seconds=self._draft_seconds,
            verify_seconds=self._pass_seconds,
        )


def _rates(batch: Batch) -> list[float]:
    """For each row how many of its drafted tokens were right lately; half of them, to begin with."""
    counts = [row.memo.get("rate", (1.0, 1.0)) for row in batch.rows]
    return [right / (right + wrong) for right, wrong in counts]


def _remember(row: Row, right: int, wrong: int) -> None:
    before = row.memo.get("rate", (1.0, 1.0))
    row.memo["rate"] = (FADING * before[0] + right, FADING * before[1] + wrong)


def _compare_shadow(row: Row) -> None:
    """See whether a draft that was not verified would have been right."""
    start, tokens = row.memo.get("shadow", (0, ()))
    for place, token in enumerate(row.tokens[start : start + len(tokens)]):
        if token != tokens[place]:
            _remember(row, 0, 1)
            del row.memo["shadow"]
            return
        _remember(row, 1, 0)
        row.memo["shadow"] = (start + place + 1, tokens[place + 1 :])
    if tokens and not row.memo["shadow"][1]:
        del row.memo["shadow"]


def _check(draft: Draft, drafter: Drafter, batch: Batch, lengths: Sequence[int], vocab_size: int) -> None:
    """Raise `PluginError` for a draft that breaks the contract."""
    problem = _shape_problem(draft, lengths, vocab_size) or _q_problem(draft, drafter, batch)
    if problem:
        message = f"the drafter {drafter.NAME or type(drafter).__name__!r} {problem}"
        raise PluginError(message)


def _shape_problem(draft: Draft, lengths: Sequence[int], vocab_size: int) -> str | None:
    if len(draft.tokens) != len(lengths):
        return f"drafted for {len(draft.tokens)} rows, and there are {len(lengths)}: give one list a row"
    for row, (block, most) in enumerate(zip(draft.tokens, lengths, strict=True)):
        if len(block) > most:
            return f"drafted {len(block)} tokens for row {row}, and at most {most} were asked for"
        if any(type(token) is not int or not 0 <= token < vocab_size for token in block):
            return f"drafted {block!r} for row {row}: tokens are ids, Python ints in [0, {vocab_size})"
    return None


def _q_problem(draft: Draft, drafter: Drafter, batch: Batch) -> str | None:
    longest = max(map(len, draft.tokens), default=0)
    if not draft.q:
        return "reports no q, and declares reports_q" if drafter.LAWS.reports_q and longest else None
    if len(draft.q) < longest:
        return f"gave {len(draft.q)} distributions for drafts of up to {longest} tokens: give one a token"
    for column, q in enumerate(draft.q[:longest]):
        if q.scores.dim() != 2 or len(q.scores) != len(batch.rows):
            return f"gave q of shape {list(q.scores.shape)}: it must be [B, V] for {len(batch.rows)} rows"
        for row, block in enumerate(draft.tokens):
            if column < len(block):
                score = float(q.logprobs[row, block[column]])
                if not score > -float("inf"):
                    return (
                        f"drafted token {block[column]} for row {row}, which its own distribution gives "
                        f"the log-probability {score}: report what the token was drawn from"
                    )
    return None
