"""A tokenizer, a model and a way to the kit, for the tests of structured output."""

import attrs
import decodekit as dk
import torch
from decodekit.testing.models import tiny_llama
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

CORPUS = [
    '{"name": "Ada", "age": 36, "tags": ["one", "two"], "open": true}',
    "yes, no: null 2024-11-25 false",
]


def _tokenizer(vocab_size):
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(CORPUS * 50, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", pad_token="</s>")


BYTES = _tokenizer(256)
TOKENIZER = _tokenizer(330)
EOS = TOKENIZER.eos_token_id
MODEL = tiny_llama(len(TOKENIZER), dtype=torch.float32, eos_token_id=EOS, pad_token_id=EOS, bos_token_id=None)
PROMPTS = ["Hello", "Tell me of Ada:", "x"]
HOT = ("temperature", {"temperature": 4.0})


def answers(*processors, count=3, **arguments):
    """The generated texts of ``count`` prompts of different lengths, without EOS, and the output."""
    prompts = [PROMPTS[place % len(PROMPTS)] for place in range(count)]
    inputs = TOKENIZER(prompts, return_tensors="pt", padding=True, padding_side="left")
    given = {"seed": list(range(count)), "strategy": "sample", "max_new_tokens": 80, "tokenizer": TOKENIZER}
    out = dk.generate(
        MODEL,
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        processors=[*processors, HOT],
        return_dict_in_generate=True,
        **(given | arguments),
    )
    width = inputs["input_ids"].shape[1]
    return TOKENIZER.batch_decode(out.sequences[:, width:], skip_special_tokens=True), out


def for_the_kit(cls, *, bounded):
    """The class with a tokenizer for the kit's contexts, which have none; and perhaps without a limit."""

    def bind(self, context):
        ends = context.eos_token_ids or (BYTES.eos_token_id,)
        limit = context.max_new_tokens if bounded else None
        return cls.bind(
            self, attrs.evolve(context, tokenizer=BYTES, eos_token_ids=ends, max_new_tokens=limit)
        )

    return attrs.frozen(type(cls.__name__, (cls,), {"bind": bind, "__module__": __name__}))
