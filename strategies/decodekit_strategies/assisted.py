"""Assisted decoding: a draft is verified in one forward pass, and changes the speed only."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import attrs
import torch
from decodekit import (
    Batch,
    CallContext,
    Capability,
    Distribution,
    Draft,
    Drafter,
    ParameterError,
    Purpose,
    Strategy,
    StrategyLaws,
    param,
)

from decodekit_strategies._drafting import STRETCH, Drafting, chosen_drafter
from decodekit_strategies._economics import Economics
from decodekit_strategies._verification import RULES, choose
from decodekit_strategies._walk import Walk, certain, probabilities_of

__all__ = ["Assisted"]

_SCHEDULES = ("constant", "heuristic", "heuristic_transient")
_RULES = ("coupled", *RULES)


@attrs.frozen
class Assisted(Strategy):
    """Draft the next tokens of every row, verify them at once, and keep the draft as far as it is right.

    What drafts is the ``drafter``, or what transformers' arguments name. Each row accepts as many tokens
    as it can, and gets one more from the same forward pass. Without do_sample a drafted token is right
    when it is the argmax. With do_sample the rule of verification decides: ``coupled`` takes what plain
    decoding would have drawn there, with the position's own noise, which drafters share; ``rejection`` and
    ``block`` keep the law of the output, but not the tokens of a seed; ``typical`` and ``ensemble`` are
    lossy. Under the coupled rule and without sampling drafts get shorter, down to none, where their time
    is not paid back.

    Source: Stern et al. (2018), arXiv 1811.03115, section 3; Leviathan et al. (2023), arXiv 2211.17192;
        Sun et al. (2024), arXiv 2403.10444 (block); Cai et al. (2024), arXiv 2401.10774 (typical);
        arXiv 2604.07622 (ensemble); the coupling by shared noise after Daliri et al. (2024),
        arXiv 2408.07978.
    Range: num_assistant_tokens, prompt_lookup_num_tokens in [1, inf); one drafter.
    Shape: one forward of K + 1 positions a row and step; rows may draft and accept different numbers.
    Law: lossless, but for the rules typical and ensemble. Under a seed with the coupled rule, and without
        sampling, the tokens are those of plain decoding.
    Raises: ParameterError when nothing drafts, two things do, a rule needs what is not there, or a look-up,
        look-behind or typical parameter would have no effect; PluginError when a drafter breaks its contract.
    """

    NAME: ClassVar[str] = "assisted"
    NEEDS: ClassVar[frozenset[Capability]] = frozenset({Capability.ROLLBACK, Capability.POSITIONS})
    LAWS: ClassVar[StrategyLaws] = StrategyLaws(greedy_limit=True, lossless=True, verifies="drafter")
    POSITIONAL: ClassVar[bool] = True

    drafter: Any = param(
        None,
        help="What drafts: a drafter's name (see decodekit.drafters), a pair (name, {parameter: value}), "
        "a class, or an object with a method draft.",
    )
    verification: Literal["coupled", "rejection", "block", "typical", "ensemble"] = param(
        "coupled", choices=_RULES, help="How a drawn draft is judged; typical and ensemble are lossy."
    )
    assistant_model: Any = param(None, help="A smaller model of transformers, which drafts.")
    assistant_tokenizer: Any = param(None, help="The tokenizer of an assistant model of another vocabulary.")
    assistant_lookbehind: int = param(10, range="[1, inf)", help="Its last tokens that are decoded again.")
    target_lookbehind: int = param(
        10, range="[1, inf)", help="Our last tokens that are encoded for it again."
    )
    assistant_early_exit: int | None = param(
        None, range="[1, inf)", help="The first layers of the model that draft, with its head."
    )
    prompt_lookup_num_tokens: int | None = param(
        None, range="[1, inf)", help="Draft this many tokens from where the text stood before."
    )
    max_matching_ngram_size: int = param(2, range="[1, inf)", help="Tokens that must agree for a look-up.")
    use_mtp: bool = param(False, help="The model's own multi-token heads draft.")
    num_assistant_tokens: int = param(20, range="[1, inf)", help="The most tokens that are drafted.")
    num_assistant_tokens_schedule: Literal["constant", "heuristic", "heuristic_transient"] = param(
        "constant",
        choices=_SCHEDULES,
        help="Heuristic: a row drafts two more after a draft that was right, and one less after another.",
    )
    assistant_confidence_threshold: float = param(
        0.4, range="[0, 1]", help="A model's draft ends with a token that it gives less than this."
    )
    assistant_ensemble_weight: float | None = param(
        None, range="(0, 1)", help="The part of the target in the ensemble, whose rule it selects. Lossy."
    )
    typical_epsilon: float = param(0.09, range="(0, 1]", help="Typical: tokens above this are always kept.")
    typical_delta: float = param(0.3, range="(0, inf)", help="Typical: the factor of exp(-entropy).")
    adaptive: bool = param(
        True,
        help="Where no token depends on a draft's length: draft less, down to nothing, while that is not "
        "paid back, and up to four times as much (of kernels, as many as they have places for) while that is "
        "and drafts cost nothing.",
    )
    do_sample: bool = param(False, help="Draw tokens instead of taking the most probable.")
    _chosen: Drafter = attrs.field(default=None, repr=False, eq=False)
    _vocab_size: int = attrs.field(default=0, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        if self._chosen is None:
            object.__setattr__(self, "_chosen", chosen_drafter(self))
        if self.rule not in RULES:
            return
        if not RULES[self.rule].lossless and not self.do_sample:
            message = f"verification={self.rule!r} would have no effect: add do_sample=True, or leave it out"
            raise ParameterError(message)
        if RULES[self.rule].needs_q and not self._chosen.LAWS.reports_q:
            message = (
                f"verification={self.rule!r} needs the distribution that a drafter drew from, and "
                f"{self._chosen.NAME!r} draws nothing: choose a drafter with a model, or another rule"
            )
            raise ParameterError(message)
        if self.rule == "ensemble" and self.assistant_ensemble_weight is None:
            message = "verification='ensemble' needs assistant_ensemble_weight=<a number in (0, 1)>"
            raise ParameterError(message)

    @property
    def rule(self) -> str:
        """The rule of verification: `verification`, unless an ensemble's weight selects that rule."""
        return self.verification if self.assistant_ensemble_weight is None else "ensemble"

    @property
    def vocab_size(self) -> int:
        """The width of the target's logits, once it is bound."""
        return self._vocab_size

    @property
    def exact(self) -> bool:
        """Whether the tokens are plain decoding's, whatever is drafted."""
        return not self.do_sample or self.rule == "coupled"

    @property
    def samples(self) -> bool:
        """Whether tokens are drawn."""
        return self.do_sample

    @property
    def laws(self) -> StrategyLaws:
        """What this rule promises."""
        lossless = self.rule not in RULES or RULES[self.rule].lossless
        rules: dict[str, Literal["coupled", "rejection"]] = {"coupled": "coupled", "rejection": "rejection"}
        return attrs.evolve(self.LAWS, lossless=lossless, acceptance=rules.get(self.rule))

    @property
    def needs(self) -> frozenset[Capability]:
        """What the verification and the drafter need."""
        return self.NEEDS | self._chosen.NEEDS

    @property
    def models(self) -> Mapping[str, Any]:
        """The drafter's."""
        return self._chosen.models

    @property
    def foreign_models(self) -> Mapping[str, Any]:
        """The drafter's."""
        return self._chosen.foreign_models

    @property
    def heads(self) -> Any:
        """The drafter's."""
        return self._chosen.heads

    @property
    def asked(self) -> int:
        """How many tokens are to be drafted at most."""
        asked = self.prompt_lookup_num_tokens or self.num_assistant_tokens
        return min(asked, self._chosen.longest_draft or asked)

    @property
    def lookahead(self) -> int:
        """The longest draft."""
        return STRETCH * self.asked if self.exact and self.adaptive else self.asked

    def bind(self, model: Any, context: CallContext) -> "Assisted":
        """Bind the drafter."""
        return attrs.evolve(self, chosen=self._chosen.bind(model, context), vocab_size=context.vocab_size)

    def start(self, batch: Batch) -> None:
        """Nothing is measured yet."""
        filled = batch.target.filled
        economics = Economics(filled and (lambda drafted: filled(1 + drafted) - 1))
        batch.memo["drafting"] = Drafting(self, economics)

    def step(self, batch: Batch) -> None:
        """Draft, verify, commit."""
        drafting: Drafting = batch.memo["drafting"]
        draft = drafting.draft(batch, self._chosen)
        blocks, p = self._agree(batch, draft) if self.exact else self._judge(batch, draft)
        drafting.verified(batch, draft, [len(block) - 1 for block in blocks])
        batch.commit(blocks, p)

    def _agree(self, batch: Batch, draft: Draft) -> tuple[list[list[int]], Distribution]:
        """Go along the drafts as far as they are what plain decoding takes; nothing else is computed."""
        if not any(draft.tokens):
            p = batch.dist(batch.logits())
            return [[token] for token in self._pick(batch, p)], p
        walk = Walk(batch, draft)
        blocks: list[list[int]] = [[] for _ in batch.rows]
        going = [True] * len(batch.rows)
        while any(going):
            p = walk.next()
            for row, token in enumerate(self._pick(batch, p)):
                if going[row]:
                    blocks[row].append(token)
                    ends = token in batch.stops.eos_token_ids
                    going[row] = walk.drafted(row) == token and not ends
                    walk.go_on(row, going[row])
        return blocks, walk.distribution()

    def _pick(self, batch: Batch, p: Distribution) -> list[int]:
        """What plain decoding takes from p."""
        tokens: list[int] = (batch.draw(p) if self.do_sample else p.argmax()).tolist()
        return tokens

    def _judge(self, batch: Batch, draft: Draft) -> tuple[list[list[int]], Distribution]:
        """Apply the rule of verification, and draw from its verdict."""
        p = self._along(batch, draft)
        tokens = draft.tokens
        counts = torch.tensor([len(block) for block in tokens])
        longest = int(counts.max())
        drafts = torch.tensor([block + [0] * (longest - len(block)) for block in tokens])
        drafts = drafts.view(len(tokens), longest).long()
        greedy = torch.tensor([row.greedy for row in batch.rows])
        q = probabilities_of(draft, drafts, counts, greedy, p.scores.shape[-1])
        rule = RULES[self.rule]
        options = {
            "epsilon": self.typical_epsilon,
            "delta": self.typical_delta,
            "weight": self.assistant_ensemble_weight,
        }
        verdict = rule.verdict(
            certain(p.scores.double().cpu().view(len(tokens), longest + 1, -1), greedy),
            q,
            drafts,
            counts,
            **{name: options[name] for name in rule.options},
        )
        n = choose(verdict.kept, batch.uniform(Purpose.ACCEPT).cpu())
        law = verdict.nexts[torch.arange(len(tokens)), n].log().to(p.scores.device)
        after = Distribution(law, law, offsets=n.tolist())
        x = batch.draw(after, Purpose.RESIDUAL).tolist()
        return [[*block[:most], token] for block, most, token in zip(tokens, n.tolist(), x, strict=True)], p

    def _along(self, batch: Batch, draft: Draft) -> Distribution:
        """The target's distributions along the drafts, as far as these are possible.

        What stands behind an impossible token or the end of the text is never used, and a processor may
        not be asked about it.
        """
        walk = Walk(batch, draft)
        for column in range(1 + max(map(len, draft.tokens))):
            p = walk.next()
            for row, block in enumerate(draft.tokens):
                if column < len(block) and len(walk.kept[row]) == column:
                    possible = float(p.scores[row, block[column]]) > -torch.inf
                    walk.go_on(row, possible and block[column] not in batch.stops.eos_token_ids)
        return walk.distribution()
