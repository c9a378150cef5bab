"""Keras models for shards: data adapters, layers, optimizers, schedules, the guide's models and user models."""
