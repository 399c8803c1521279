"""A drafter under test, and the smallest strategy that verifies what it drafts."""

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar

import attrs
from hypothesis import strategies as st

from decodekit.distribution import Distribution
from decodekit.drafter import Draft, Drafter, Pick
from decodekit.params import param
from decodekit.processor import CallContext
from decodekit.randomness import Purpose
from decodekit.strategy import Capability, Strategy, StrategyLaws
from decodekit.testing import generators
from decodekit.testing.strategy_case import Case
from decodekit.testing.strategy_models import KINDS, KitModel, random_model
from decodekit.testing.strategy_toys import random_chain

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from decodekit.batch import Batch

__all__ = ["DrafterSubject", "Idle", "Look", "Verify"]

Look = Callable[["Batch", Sequence[int], Draft], None]
"""Sees a draft before it is verified: the batch, the lengths that were asked for, the draft."""


@attrs.frozen
class Idle(Drafter):
    """Drafts nothing, so that what verifies it is plain sampling."""

    NAME: ClassVar[str] = "kit_idle"

    def draft(self, batch: "Batch", lengths: Sequence[int], pick: Pick) -> Draft:
        """Nothing."""
        return Draft([[] for _ in lengths])


@attrs.frozen
class Verify(Strategy):
    """Keep a draft as far as it is what plain sampling draws.

    Attributes:
        drafter: what is under test.
        length: the most tokens that are asked for.
        look: called with every draft.
        purpose: whose noise the drafter draws with.
    """

    NAME: ClassVar[str] = "kit_verify"
    NEEDS: ClassVar[frozenset[Capability]] = frozenset({Capability.ROLLBACK, Capability.POSITIONS})
    LAWS: ClassVar[StrategyLaws] = StrategyLaws(lossless=True)
    SAMPLES: ClassVar[bool] = True
    POSITIONAL: ClassVar[bool] = True

    drafter: Any = param(help="What is under test.")
    length: int = param(4, range="[1, inf)", help="The most tokens that are asked for.")
    _look: Any = attrs.field(default=None, repr=False, eq=False)
    _purpose: Purpose = attrs.field(default=Purpose.TOKEN, repr=False)

    def bind(self, model: "PreTrainedModel", context: CallContext) -> "Verify":
        """Bind the drafter."""
        return attrs.evolve(self, drafter=self.drafter.bind(model, context))

    @property
    def needs(self) -> frozenset[Capability]:
        """What verification and drafter need."""
        needs: frozenset[Capability] = self.NEEDS | self.drafter.NEEDS
        return needs

    @property
    def models(self) -> "Mapping[str, PreTrainedModel]":
        """The drafter's."""
        models: Mapping[str, PreTrainedModel] = self.drafter.models
        return models

    @property
    def foreign_models(self) -> "Mapping[str, PreTrainedModel]":
        """The drafter's."""
        models: Mapping[str, PreTrainedModel] = self.drafter.foreign_models
        return models

    @property
    def heads(self) -> Any:
        """The drafter's."""
        return self.drafter.heads

    @property
    def lookahead(self) -> int:
        """The longest draft."""
        return self.length

    def pick(self, batch: "Batch") -> Callable[[Distribution], Any]:
        """How the drafter takes tokens."""
        return lambda q: batch.draw(q, self._purpose)

    def step(self, batch: "Batch") -> None:
        """Draft, look, verify, commit."""
        room = [batch.stops.max_new_tokens - len(row.tokens) - 1 for row in batch.rows]
        lengths = [min(self.length, most) for most in room]
        draft = self.drafter.draft(batch, lengths, self.pick(batch))
        if self._look is not None:
            self._look(batch, lengths, draft)
        p = batch.dist(batch.logits(draft.tokens), draft.tokens)
        blocks = []
        for block, drawn in zip(draft.tokens, batch.draw(p).tolist(), strict=True):
            pairs = enumerate(zip(block, drawn, strict=False))
            blocks.append(drawn[: next((n for n, (x, y) in pairs if x != y), len(block)) + 1])
        batch.commit(blocks, p)


@attrs.frozen
class DrafterSubject:
    """A drafter class under test.

    Attributes:
        cls: the class.
        fixed: the only instance to look at, when the author gave one.
        examples: parameter values to choose from; empty when they come from the declared ranges.
        target: the model to draft for; left out, small models of all sorts.
        tokenizer: the target's, for drafters that need one.
    """

    cls: type[Drafter]
    fixed: Drafter | None = None
    examples: Sequence[Mapping[str, Any]] = ()
    target: Any = None
    tokenizer: Any = None

    @property
    def name(self) -> str:
        """What reports call it."""
        return f"drafter {self.cls.NAME or self.cls.__name__}"

    def declares(self, law: str) -> bool:
        """Whether its LAWS hold this promise."""
        return bool(getattr(self.cls.LAWS, law))

    def drafters(self) -> st.SearchStrategy[Drafter]:
        """Instances with parameters from the examples or the declared ranges."""
        return generators.instances(self.cls, self.name, self.fixed, self.examples)

    def cases(self, *, copies: int | None = None, ends: bool = True) -> st.SearchStrategy[Case]:
        """Calls with ragged prompts; ``copies`` rows a prompt, or some."""
        random = st.integers(0, 99_999).map(Random)
        return st.builds(self._case, self.drafters(), random, st.just(copies), st.just(ends))

    def _case(self, drafter: Drafter, random: Random, copies: int | None, ends: bool) -> Case:
        model = self._model(drafter, random)
        ids = range(model.vocab_size)
        count = random.randint(1, 3)
        return Case(
            strategy=Verify(drafter, random.randint(1, 5)),
            model=model,
            prompts=[random.choices(ids, k=random.randint(1, 8)) for _ in range(count)],
            seeds=random.choices(range(10), k=count),
            max_new_tokens=random.randint(2, 10),
            eos=tuple(random.sample(ids, random.choice([0, 1]))) if ends else (),
            pad=random.choice(ids),
            processors=random_chain(random, 0, 2),
            copies=copies or random.randint(1, 2),
        )

    def _model(self, drafter: Drafter, random: Random) -> KitModel:
        if self.target is not None:
            return KitModel("the given target", self.target, self.target.config.get_text_config().vocab_size)
        sizes = {
            model.config.get_text_config().vocab_size
            for model in drafter.models.values()
            if model is not None
        }
        drawn = random_model(random, KINDS, 9)
        while sizes and drawn.vocab_size not in sizes:
            drawn = random_model(random, KINDS, max(sizes))
        return drawn
