"""Keras models that fit the shards: layers, optimizers, schedules, the models of the guide, users' models."""
