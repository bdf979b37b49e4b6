"""Ablations and benchmarks: for those who study the model; nothing else imports it."""
