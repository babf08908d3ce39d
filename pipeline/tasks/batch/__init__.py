"""Batches: many models from one list, each converted, validated and reported like a single model."""
