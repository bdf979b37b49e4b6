"""The operations of the model: each defined once in plain PyTorch, with the choice of a faster form."""
