"""Tiny GGUF files, written as llama.cpp's converter would."""

import gguf
import numpy as np
from transformers import AutoModelForCausalLM, AutoTokenizer


def write_gguf(path, folder, architecture="llama"):
    """Write the tiny Llama of a folder, all weights in float32."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    add_tokenizer(writer, tokenizer)
    for name, tensor in tensors(model):
        writer.add_tensor(name, np.ascontiguousarray(tensor.float().numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_tokenizer(writer, tokenizer):
    words = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([word for word, _ in words])
    special = set(tokenizer.all_special_tokens)
    kinds = [gguf.TokenType.CONTROL if word in special else gguf.TokenType.NORMAL for word, _ in words]
    writer.add_token_types(kinds)
    writer.add_token_scores([0.0] * len(words))  # from which transformers concludes that there are no merges
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_chat_template(tokenizer.chat_template)


def tensors(model):
    """Names and values in GGUF's order: the two halves of each rotated head are interleaved."""
    heads = {"q": model.config.num_attention_heads, "k": model.config.num_key_value_heads}
    yield "token_embd.weight", model.model.embed_tokens.weight.data
    yield "output_norm.weight", model.model.norm.weight.data
    for number, layer in enumerate(model.model.layers):
        block = f"blk.{number}."
        for letter in "qkvo":
            weight = getattr(layer.self_attn, f"{letter}_proj").weight.data
            if letter in heads:
                rows, columns = weight.shape
                weight = weight.view(heads[letter], 2, -1, columns).transpose(1, 2).reshape(rows, columns)
            yield block + ("attn_output" if letter == "o" else f"attn_{letter}") + ".weight", weight
        for part in ("gate", "up", "down"):
            yield f"{block}ffn_{part}.weight", getattr(layer.mlp, f"{part}_proj").weight.data
        yield block + "attn_norm.weight", layer.input_layernorm.weight.data
        yield block + "ffn_norm.weight", layer.post_attention_layernorm.weight.data
