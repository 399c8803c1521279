"""Why each property matters, and what to do when a plugin breaks it."""

import attrs

__all__ = ["ADVICE", "Advice"]


@attrs.frozen
class Advice:
    """What a report says beside the counter-example.

    Attributes:
        why: who is hurt by it, in a sentence.
        remedy: what to do, in a sentence.
    """

    why: str = ""
    remedy: str = "Make the counter-example a test, and mend the plugin until it passes."


ADVICE: dict[str, Advice] = {
    "P1 shape dtype and device": Advice(
        "The next processor takes the result as it is: a silent change of dtype changes probabilities.",
        "Return a tensor like `logits`; convert intermediate results back with `.to(logits)`.",
    ),
    "P2 purity": Advice(
        "The core keeps the raw logits for scores and for verifying drafts; a change in place corrupts them.",
        "Use `masked_fill`, `where` and `scatter` without the underscore at the end of their names.",
    ),
    "P3 determinism": Advice(
        "A draft is verified by computing its probabilities again: a draw inside makes them differ.",
        "Write the expectation over the draw as a mixture of distributions, as the built-in xtc does.",
    ),
    "P4 row independence": Advice(
        "What a user gets would depend on who else is in the batch.",
        "Reduce along the vocabulary only: `x.max(dim=-1, keepdim=True)`, never `x.max()`.",
    ),
    "P5 batch order": Advice(
        "Rows leave and are reordered while a call runs; a place in the batch says nothing about a row.",
        "Use no index of the batch dimension other than to select rows.",
    ),
    "P6 no nan": Advice(
        "softmax turns one NaN into a row of NaN, and the draw fails or takes an arbitrary token.",
        "Guard -inf before subtracting or multiplying: `-inf - -inf` and `0 * -inf` are NaN.",
    ),
    "P7 support": Advice(
        "A row without a possible token can't go on: generation ends with EmptySupportError.",
        "Keep at least the token of the largest logit, or declare `may_empty`.",
    ),
    "P8 no resurrection": Advice(
        "A grammar or a ban that stood before in the chain would be undone.",
        "End with `.masked_fill(logits == -inf, -inf)`, or declare `may_revive`.",
    ),
    "P9 shift invariance": Advice(
        "Logits are known up to a constant, and hosts shift them (log-softmax): the result must not notice.",
        "Work with differences to the largest logit, or with probabilities.",
    ),
    "P10 vocabulary permutation": Advice(
        "A dependence on token numbers is a bias for or against words nobody chose.",
        "Look for an index used as a value, and for ties broken by position.",
    ),
    "P11 ratio preservation": Advice(
        "Users of a truncation expect the tokens that stay to keep their proportions.",
        "Only mask; do not rescale what survives.",
    ),
    "P12 upper set": Advice(
        "A less probable token was kept where a more probable one was cut: often a sort applied wrongly.",
        "Compute a threshold and compare logits with it; check the direction of the scatter.",
    ),
    "P13 order preservation": Advice(
        "A processor that is said to keep the order made an improbable token overtake a likely one.",
        "Check the range of the parameter where the curve stops being monotone.",
    ),
    "P14 argmax preservation": Advice(
        "Greedy decoding skips processors that keep the argmax; a false promise changes greedy output.",
        "Let at least one token of the largest logit keep the largest value.",
    ),
    "P15 idempotence": Advice(
        "Chains drop the second of two equal processors when it says that it changes nothing.",
        "Most thresholds on renormalised probabilities are not idempotent.",
    ),
    "P16 nested supports": Advice(
        "Tuning relies on it: a looser value must not forbid what a stricter one allowed.",
        "Check the direction (`-name` when the set shrinks), and rounding at the threshold.",
    ),
    "P17 neutral parameter": Advice(
        "Chains leave a neutral processor out, so applying it must not change one bit.",
        "Return `logits` unchanged at the neutral value, or declare another one.",
    ),
    "P18 extreme parameters": Advice(
        "Users do set top_p=0 and temperature=1e-6; that must not end in NaN or an empty row.",
        "Tighten the declared range, or keep the largest token and clamp.",
    ),
    "P19 temperature law": Advice(
        "Orders of a chain are exchanged where this is promised.",
        "Thresholds on probabilities depend on the temperature; those on logits scale with it.",
    ),
    "P20 minimality": Advice(
        "A set that is one token too large or too small is the usual mistake of a cumulative sum.",
        "Compare the mass before a token with p, and keep the token that reaches it.",
    ),
    "P21 oracle equality": Advice(
        "The fast form computes something else than the plain one.",
        "Run both on the row that is shown; cumulative sums and ties are the usual places.",
    ),
    "P22 no memory": Advice(
        "Drafts and beams ask about several futures in turn: memory of one leaks into the next.",
        "Compute from `history`; if that is not enough, make it a `StatefulProcessor`.",
    ),
    "P23 state is a value": Advice(
        "The core forks states along drafts and beams and drops the forks of what was rejected.",
        "Let `advance` return a new object; never append to a list inside the state.",
    ),
    "P24 fresh start": Advice(
        "The next prompt, maybe another user's, would see what the last one left.",
        "Keep nothing on the instance; fill in what `bind` computes as a new instance.",
    ),
    "P25 padding invariance": Advice(
        "Ragged batches are padded on the left, with a real token id in many models.",
        "Use `history.mask`, `history.row(i)` or `history.pads` before looking at tokens.",
    ),
    "P26 prompt and generated": Advice(
        "Penalties that count the prompt where they should not forbid the words of the question.",
        "Use `history.generated_mask` for generated tokens only, `history.mask` for all.",
    ),
    "P27 vocabulary padding": Advice(
        "Many models have more logits than tokens; impossible ones must not count in means and entropies.",
        "Reduce over finite logits only.",
    ),
    "P28 ids beyond the logits": Advice(
        "Multimodal prompts hold ids that have no logit: indexing with them fails or hits a wrong token.",
        "Drop ids of at least `logits.shape[-1]` before scattering.",
    ),
    "P29 long history": Advice(
        "A cost that grows with the square of the history makes long contexts unusable.",
        "Vectorise over the history, and look at a window where the method allows it.",
    ),
    "P30 parameter validation": Advice(
        "A wrong value should be an error at once and not odd text later.",
        "Declare every number with `decodekit.param(default, range=..., help=...)`.",
    ),
    "P31 half precision": Advice(
        "Models run in bfloat16; rounding inside the processor then cuts other tokens.",
        "Compute in float32 (`logits.float()`) and convert the result back.",
    ),
    "P32 chain algebra": Advice(
        "Users put chains into an order by what is said to make no difference.",
        "Take the name out of `commutes_with`, or look at what the one measures and the other changes.",
    ),
    "P33 short chain": Advice(
        "After a cut a chain shows the tokens that are left alone, for speed; that must not change the text.",
        "Widen `PLACE`: a processor that looks at impossible tokens has not the scope it declares.",
    ),
    "P34 short form": Advice(
        "`cut` stands in for the call wherever its answer is clear.",
        "Say in `Cut.clear` for which rows the largest logits decide, or leave `cut` out.",
    ),
    "P35 scope": Advice(
        "`PLACE.scope` says what may be left out when the processor is called.",
        "Declare a wider scope, or stop looking at the history, the order or the impossible tokens.",
    ),
    "S27 constraint soundness": Advice(
        "A program reads the answer and relies on its form.",
        "Allow EOS only where the answer is complete; follow the state of every row, the prompt included.",
    ),
    "S27 constraint completeness": Advice(
        "A constraint that forbids right answers makes the model say something else.",
        "Look for a token that is masked because only a part of it was tried.",
    ),
    "S1 greedy limit": Advice(
        "At temperature 0 users expect the answer of greedy decoding, whatever the method.",
        "Commit the argmax of `batch.dist(...)` there, ties to the lowest id.",
    ),
    "S2 support": Advice(
        "A token that the chain has forbidden came out: bans, grammars and truncations are void.",
        "Take tokens from `batch.dist(...)` only, never from raw logits.",
    ),
    "S3 reported log probabilities": Advice(
        "Evaluation and reranking use these numbers.",
        "Pass to `batch.commit` the distribution from which the tokens were taken, column for column.",
    ),
    "S4 sequence law of the model": Advice(
        "A method that is called lossless would change what users sample.",
        "Check the residual after a rejection, and that a draft of probability 0 is never accepted.",
    ),
    "S5 sequence law with processors": Advice(
        "It is lossless without samplers only, as in engines that skip processors while drafting.",
        "Give `batch.dist` the drafts as well, so that histories are those after each drafted token.",
    ),
    "S6 batch invariance": Advice(
        "What a prompt gets would depend on its neighbours.",
        "Keep per-row values in `row.memo`, and loop over `batch.rows` instead of a fixed batch size.",
    ),
    "S7 batch order": Advice(
        "Rows that end leave the batch: state kept by position then belongs to another row.",
        "Keep nothing indexed by the batch position between steps.",
    ),
    "S8 seeds": Advice(
        "A seed must make a result reproducible alone, in a batch and on another machine.",
        "Draw with `batch.draw` and `batch.uniform(purpose)`, a purpose of its own for each kind of draw.",
    ),
    "S9 cache honesty": Advice(
        "Logits from a wrong cache, mask or position look plausible and are wrong.",
        "Ask for logits through the batch, and let `batch.select` carry rows.",
    ),
    "S10 rollback leak": Advice(
        "A rejected draft would go on to influence the text.",
        "Do not keep what was computed under a draft beyond the step.",
    ),
    "S11 left padding": Advice(
        "The same prompt gives another answer when a longer one is beside it.",
        "Use `row.tokens` and `row.prompt_tokens`, which have no padding.",
    ),
    "S12 end of sequence": Advice(
        "Text after the end is noise that users see.",
        "Commit whole blocks and let the core trim; do not keep rows that have ended.",
    ),
    "S13 length": Advice(
        "max_new_tokens is a budget, of money too.",
        "Commit at least one token a step, and nothing behind the core's back.",
    ),
    "S14 stop strings": Advice(
        "Agents parse what stands before a stop string.",
        "Commit tokens in order; do not finish rows on your own.",
    ),
    "S15 prompts stay": Advice(
        "The caller's tensors are used again for the next call.",
        "Never write into `prompt_tokens` or into tensors that came from the caller.",
    ),
    "S16 streaming": Advice(
        "A streamed token can't be taken back from a screen.",
        "Commit only what is final; a search keeps its alternatives in lanes.",
    ),
    "S17 counters": Advice(
        "Speed claims are made of these counters.",
        "Count on the row: `row.drafted` and `row.accepted`, once for each token of a draft.",
    ),
    "S18 termination": Advice(
        "A step that commits nothing runs for ever.",
        "Let every step commit at least one token to every row, also when the whole draft is rejected.",
    ),
    "S19 global randomness": Advice(
        "Other code's random numbers would change, or ours with theirs.",
        "Use the batch's draws; never `random`, `numpy.random` or `torch.manual_seed`.",
    ),
    "S20 no traces": Advice(
        "The next call, or training, would run with a changed model.",
        "Restore in `finally` what you change, or better change nothing.",
    ),
    "S20 errors get through": Advice(
        "A swallowed error turns into odd text.",
        "Catch only what you can handle, never `Exception` around the whole step.",
    ),
    "S21 cancellation": Advice(
        "A closed stream must free the memory of its cache.",
        "Hold no reference to the batch or its rows outside of the step.",
    ),
    "S22 capabilities": Advice(
        "On a model that can't roll back the output would silently be wrong.",
        "Name in `NEEDS` what the step uses: rollback, positions, select, hidden states.",
    ),
    "S23 neutral parameters": Advice(
        "Where a method is turned off, users expect what they had before they knew it.",
        "Go through the step by hand at the neutral values; where it is another method, take `neutral` out.",
    ),
    "S24 exhaustive search": Advice(
        "A search that misses the best sequence even where it may keep them all has lost it on the way.",
        "Look at what is dropped when sequences end, and at the length that divides a score.",
    ),
    "S24 ranking": Advice(
        "Callers take the first row for the best one.",
        "Set `row.score` in `finish`, sort by it, and hand the rows to `batch.keep`.",
    ),
    "S25 draws without replacement": Advice(
        "Estimates that weight the rows assume these inclusion probabilities.",
        "Condition the noise of the children on that of their parent, as in stochastic beam search.",
    ),
    "S28 acceptance formula": Advice(
        "A rule may keep the law of the text and waste half of every draft.",
        "Couple draft and verification by one purpose, or accept with the whole min(1, p/q).",
    ),
    "S30 impossible drafts": Advice(
        "One token that the chain has forbidden is a broken grammar.",
        "Compare with `u < p / q`: where p is 0 nothing is below it, and `<=` lets 0 pass.",
    ),
    "S31 draft of the target": Advice(
        "A perfect draft that is not kept whole costs all that speculation is for.",
        "Compare p with the q of the same column, both in float64, and guard the residual where it is empty.",
    ),
    "S31 draft of other tokens": Advice(
        "What comes after a rejection decides the law: it has to be the excess of p over q.",
        "Draw from max(p - q, 0), normalised; where p and q share nothing that is p.",
    ),
    "S33 tentative isolation": Advice(
        "A grammar that has seen a rejected token is in a state from which the answer is nonsense.",
        "Pass to `batch.dist` as `after` the distribution before the last token of that same draft.",
    ),
    "S34 determinism": Advice(
        "A result that can't be repeated can't be debugged.",
        "Keep nothing on the instance from call to call.",
    ),
    "S34 draws nothing": Advice(
        "A method that is called deterministic drew.",
        "Take out the draw, or `deterministic` out of LAWS.",
    ),
    "S35 bounded cache": Advice(
        "A cache of fixed size has room for what was declared; what goes beyond ends in an error.",
        "Shorten drafts to the tokens that are left, or declare `lookahead`, and `rows_per_prompt` for rows.",
    ),
    "S35 no growth": Advice(
        "A server makes millions of calls.",
        "Keep nothing on the class or in a module; what a call needs goes into `batch.memo` and `row.memo`.",
    ),
    "S36 half precision model": Advice(
        "In half precision draws take tokens of probability 0, and close logits change their order.",
        "Compute with `batch.dist`, `batch.draw` and `batch.exponential`, which are in float32 or better.",
    ),
    "S37 smallest calls": Advice(
        "Empty prompts, one token and five rows do occur.",
        "Look for a division by a length, and for slices that assume two tokens.",
    ),
    "S37 not a number": Advice(
        "A model that overflows would produce text that looks like text.",
        "Get probabilities from `batch.dist`, which names row and step.",
    ),
    "S38 observers": Advice(
        "Looking at a call must not change it.",
        "Do not draw or compute depending on what was asked to be recorded.",
    ),
    "S39 admission": Advice(
        "In a list of prompts each joins a running batch: its text would depend on who was there before.",
        "Keep what belongs to a row in `row.memo`, and nothing for the call, or do not declare `ADMITS`.",
    ),
    "D1 contract": Advice(
        "A draft of a wrong shape, or of ids that do not exist, fails deep inside the forward pass.",
        "Return one list for each row, no longer than `lengths`, of plain ints below the vocabulary size.",
    ),
    "D2 transparency": Advice(
        "A draft may cost time; if it changes a token, users get another text than they asked for.",
        "Keep what belongs to a row in `row.memo`, and build a new value instead of changing a shared one.",
    ),
    "D3 purity": Advice(
        "The strategy may ask twice, and after a rejection it asks about the same row again.",
        "Derive the draft from `row.since(0)`; take tokens with `pick`, never with `torch.multinomial`.",
    ),
    "D4 honest q": Advice(
        "Acceptance divides by q: tokens that were drawn from another distribution bias the output.",
        "Report in `Draft.q` the distribution that `pick` was given, for the same column.",
    ),
    "D5 the model is as it was": Advice(
        "An early exit or a quantized copy that is not put back changes every later call.",
        "Restore in `finally`, or work on a copy that `bind` makes.",
    ),
    "Q1 close to the unquantized": Advice(
        "Nobody sees from the outside how much of a model is left; the declared bound is what users compare.",
        "Look for a wrong scale or axis; when the error is that of the method, declare a larger kl in LAWS.",
    ),
    "Q2 deterministic forward": Advice(
        "Drafts are verified by computing their probabilities again: other logits reject what was right.",
        "Round to nearest instead of at random, and keep nothing in the layers from call to call.",
    ),
    "Q3 cached as uncached": Advice(
        "Every strategy decodes from the cache; what it sees there has to be the model.",
        "Scale activations a token at a time; when that is the method's, declare a larger noise in LAWS.",
    ),
    "Q4 rows for themselves": Advice(
        "What a user gets would depend on who else is in the batch.",
        "Scale activations a row at a time; when that is the method's, declare a larger noise in LAWS.",
    ),
    "Q5 strategies on top": Advice(
        "A strategy is lossless relative to the model that is used, which is the quantized one.",
        "Read which check of the strategies failed: its advice holds, with the layers as the suspects.",
    ),
    "Q6 saved and loaded": Advice(
        "People quantize once and load often.",
        "Give the model's config a quantization_config of transformers, or take saves out of LAWS.",
    ),
    "Q7 memory claim": Advice(
        "Bytes are the reason for which anybody quantizes.",
        "Delete the unquantized weights after packing; count scales and zeros in bits of LAWS.",
    ),
    "Q8 embeddings stay": Advice(
        "An output layer that loses its tie doubles the largest tensor, and changes what is trained on top.",
        "Skip `model.get_output_embeddings()`, or take keeps_embeddings out of LAWS.",
    ),
    "Q9 forks and rollbacks": Advice(
        "Beams and drafts choose rows of the cache and take tokens back.",
        "Compute from the inputs of the layer alone, and not from the width of the cache.",
    ),
}
"""By id and title of the check."""
