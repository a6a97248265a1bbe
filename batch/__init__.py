"""Offline: history to features, labels, a trained DeepFM and its Triton repository.

May be imported by: `deploy`, `benchmarks`, tests. May import: `streaming` (the engine, the encoder, files, errors).
"""
