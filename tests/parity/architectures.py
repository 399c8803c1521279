"""Tiny random models of every kind that transformers generates with, and inputs for them."""

import functools

import torch
import transformers as tf

VOCAB = 60
IMAGE = 55
SPECIAL = {"pad_token_id": 3, "bos_token_id": 1, "eos_token_id": 2}
TEXT = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
    **SPECIAL,
}
GPT2 = {
    "vocab_size": VOCAB,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 256,
    "initializer_range": 0.3,
    **SPECIAL,
}
OPT = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "ffn_dim": 64,
    "max_position_embeddings": 256,
    "word_embed_proj_dim": 32,
    "init_std": 0.3,
    **SPECIAL,
}
VISION = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": 8,
    "patch_size": 4,
    "projection_dim": 32,
}
PAIR = {
    "vocab_size": VOCAB,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "init_std": 1.0,
    "decoder_start_token_id": 4,
    **SPECIAL,
}
WINDOWS = {"head_dim": 8, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]}


def _llava():
    vision = tf.CLIPVisionConfig(**{**VISION, "num_hidden_layers": 2})
    text = tf.LlamaConfig(**TEXT)
    config = tf.LlavaConfig(
        vision_config=vision, text_config=text, image_token_id=IMAGE, vision_feature_layer=-1
    )
    return tf.LlavaForConditionalGeneration(config)


def _qwen2_vl():
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    vision = {
        "embed_dim": 32,
        "depth": 2,
        "num_heads": 4,
        "hidden_size": 32,
        "patch_size": 4,
        "spatial_merge_size": 1,
        "temporal_patch_size": 1,
    }
    config = tf.Qwen2VLConfig(
        text_config={**TEXT, "rope_parameters": rope},
        vision_config=vision,
        image_token_id=IMAGE,
        video_token_id=56,
        vision_start_token_id=57,
        vision_end_token_id=58,
    )
    return tf.Qwen2VLForConditionalGeneration(config)


def _gemma3_vision():
    vision = tf.SiglipVisionConfig(**{key: value for key, value in VISION.items() if key != "projection_dim"})
    text = tf.Gemma3TextConfig(**TEXT, **{**WINDOWS, "sliding_window": 6})
    config = tf.Gemma3Config(
        text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_id=IMAGE
    )
    return tf.Gemma3ForConditionalGeneration(config)


def _mllama():
    vision = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_global_layers": 1,
        "attention_heads": 4,
        "intermediate_size": 64,
        "vision_output_dim": 64,
        "image_size": 8,
        "patch_size": 4,
        "max_num_tiles": 1,
        "intermediate_layers_indices": [0],
        "supported_aspect_ratios": [[1, 1]],
    }
    config = tf.MllamaConfig(
        vision_config=vision, text_config={**TEXT, "cross_attention_layers": [1]}, image_token_index=IMAGE
    )
    return tf.MllamaForConditionalGeneration(config)


def _blip2():
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    config = tf.Blip2Config(
        vision_config={**sizes, "image_size": 8, "patch_size": 4},
        qformer_config={**sizes, "vocab_size": VOCAB, "encoder_hidden_size": 32},
        text_config=tf.OPTConfig(**OPT),
        num_query_tokens=4,
        image_token_index=IMAGE,
    )
    return tf.Blip2ForConditionalGeneration(config)


def _whisper():
    config = tf.WhisperConfig(**PAIR, num_mel_bins=8, max_source_positions=20, max_target_positions=40)
    model = tf.WhisperForConditionalGeneration(config)
    model.generation_config.suppress_tokens = model.generation_config.begin_suppress_tokens = None
    model.generation_config.max_length = None
    return model


def _vision_pair():
    vision = tf.ViTConfig(**{key: value for key, value in VISION.items() if key != "projection_dim"})
    text = tf.GPT2Config(**GPT2, add_cross_attention=True)
    both = tf.VisionEncoderDecoderConfig.from_encoder_decoder_configs(vision, text)
    model = tf.VisionEncoderDecoderModel(config=both)
    model.generation_config = tf.GenerationConfig(decoder_start_token_id=4, **SPECIAL)
    return model


TEXT_MODELS = {
    "bloom": lambda: tf.BloomForCausalLM(
        tf.BloomConfig(
            vocab_size=VOCAB, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3, **SPECIAL
        )
    ),
    "falcon_h1": lambda: tf.FalconH1ForCausalLM(
        tf.FalconH1Config(**TEXT, mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8, mamba_d_state=8)
    ),
    "gemma2": lambda: tf.Gemma2ForCausalLM(tf.Gemma2Config(**TEXT, head_dim=8, sliding_window=4)),
    "gemma3": lambda: tf.Gemma3ForCausalLM(tf.Gemma3TextConfig(**TEXT, **WINDOWS)),
    "gpt2": lambda: tf.GPT2LMHeadModel(tf.GPT2Config(**GPT2)),
    "jamba": lambda: tf.JambaForCausalLM(
        tf.JambaConfig(
            **TEXT,
            attn_layer_period=2,
            attn_layer_offset=1,
            expert_layer_period=2,
            expert_layer_offset=1,
            num_experts=2,
            use_mamba_kernels=False,
            mamba_d_state=4,
            mamba_dt_rank=4,
        )
    ),
    "lfm2": lambda: tf.Lfm2ForCausalLM(tf.Lfm2Config(**TEXT, layer_types=["conv", "full_attention"])),
    "mamba2": lambda: tf.Mamba2ForCausalLM(
        tf.Mamba2Config(
            vocab_size=VOCAB,
            hidden_size=32,
            num_hidden_layers=2,
            num_heads=8,
            head_dim=8,
            n_groups=2,
            state_size=8,
            initializer_range=0.3,
            **SPECIAL,
        )
    ),
    "mixtral": lambda: tf.MixtralForCausalLM(tf.MixtralConfig(**TEXT, num_local_experts=4)),
    "opt": lambda: tf.OPTForCausalLM(tf.OPTConfig(**OPT)),
    "qwen3": lambda: tf.Qwen3ForCausalLM(tf.Qwen3Config(**TEXT, head_dim=8)),
}
PICTURE_MODELS = {
    "blip2": _blip2,
    "gemma3_vision": _gemma3_vision,
    "llava": _llava,
    "mllama": _mllama,
    "qwen2_vl": _qwen2_vl,
}
PAIR_MODELS = {
    "bart": lambda: tf.BartForConditionalGeneration(tf.BartConfig(**PAIR, max_position_embeddings=64)),
    "t5": lambda: tf.T5ForConditionalGeneration(
        tf.T5Config(
            vocab_size=VOCAB,
            d_model=16,
            d_kv=8,
            d_ff=32,
            num_layers=2,
            num_heads=2,
            decoder_start_token_id=4,
            initializer_factor=3.0,
            **SPECIAL,
        )
    ),
    "vision_encoder_decoder": _vision_pair,
    "whisper": _whisper,
}
EVERY = {**TEXT_MODELS, **PICTURE_MODELS, **PAIR_MODELS}


@functools.cache
def model_of(name):
    """The model of that name; float32, without dropout, the same weights in every process."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return EVERY[name]().eval()


def inputs_of(name):
    """What two prompts of different length are given as."""
    generator = torch.Generator().manual_seed(3)
    if name in PICTURE_MODELS:
        return _pictures(name, generator)
    if name == "whisper":
        return {"input_features": torch.randn(2, 8, 40, generator=generator)}
    if name == "vision_encoder_decoder":
        return {"pixel_values": torch.randn(2, 3, 8, 8, generator=generator)}
    ids = torch.randint(5, VOCAB - 10, (2, 6), generator=generator)
    mask = torch.tensor([[1] * 6, [0, 0, 1, 1, 1, 1]])
    mask = mask.flip(1) if name in PAIR_MODELS else mask  # encoders are padded on the right
    return {"input_ids": ids.where(mask.bool(), 3), "attention_mask": mask}


def _pictures(name, generator):
    tokens = 1 if name == "mllama" else 4
    ids = torch.randint(5, VOCAB - 10, (2, tokens + 5), generator=generator)
    ids[:, 1 : 1 + tokens] = IMAGE
    mask = torch.ones_like(ids)
    ids[1, 0], mask[1, 0] = 3, 0
    inputs = {"input_ids": ids, "attention_mask": mask}
    if name == "qwen2_vl":
        patches = {"pixel_values": torch.randn(8, 48, generator=generator)}
        grid = {"image_grid_thw": torch.tensor([[1, 2, 2], [1, 2, 2]])}
        return {**inputs, **patches, **grid, "mm_token_type_ids": (ids == IMAGE).long()}
    if name == "mllama":
        ones = torch.ones(2, 1, dtype=torch.long)
        shown = {"aspect_ratio_ids": ones, "aspect_ratio_mask": ones[:, None]}
        seen = {"cross_attention_mask": torch.ones(2, ids.shape[1], 1, 1, dtype=torch.long)}
        return {
            **inputs,
            **shown,
            **seen,
            "pixel_values": torch.randn(2, 1, 1, 3, 8, 8, generator=generator),
        }
    types = {"token_type_ids": (ids == IMAGE).long()} if name == "gemma3_vision" else {}
    return {**inputs, **types, "pixel_values": torch.randn(2, 3, 8, 8, generator=generator)}
