"""Train a model on shards: options, the traced step, the loop, exact state, checkpoints, the run folder, tuning."""
