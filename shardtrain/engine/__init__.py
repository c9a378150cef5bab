"""Train models over n-grams with compiled kernels that touch only the weights of features that occur."""
