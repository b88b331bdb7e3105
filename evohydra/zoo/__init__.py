"""The embedded examples: tiny models, and the synthetic problems and scenes that they were trained on."""
