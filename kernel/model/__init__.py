"""Models of an unmodified Hugging Face directory: configuration, weights, decoder, tokenizer, chat template."""
