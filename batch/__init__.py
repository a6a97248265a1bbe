"""Offline: history to features, labels, a trained DeepFM and its Triton repository."""
