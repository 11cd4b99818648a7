"""Tune a model on feedback with TRL: GRPO on a reward, DPO on preference pairs; all weights or a low-rank adapter."""
