"""Train on several GPUs and several machines: who takes part, how they talk, and what each does of a step."""
