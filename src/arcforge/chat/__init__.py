"""Text to token ids and back, by the GLM-5 chat template: tokenizer, rendering with loss mask, parsing of sampled turns."""
