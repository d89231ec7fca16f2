"""The language model: backbone, prompts, the shared-prompt token tree, generation, training stages."""
