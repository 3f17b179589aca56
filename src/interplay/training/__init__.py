"""Making models: the backbones to start from, the rows to learn from, supervised fine-tuning."""
