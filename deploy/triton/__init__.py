"""NVIDIA Triton with the Python backend, from the nvidia-pytriton wheel, without Docker."""
