"""Models on the Hugging Face Hub: pushed with a model card, and loaded by name."""
