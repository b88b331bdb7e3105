"""The embedded example: three tiny language models and the synthetic problems that they were trained on."""
