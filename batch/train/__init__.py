"""A dataset → a DeepFM that Triton serves: training, evaluation, export. Runs in the model's environment.

May be imported by: `batch.cli`. May import: `dataset.read`, `dataset.folder_hash`, `report`.
"""
