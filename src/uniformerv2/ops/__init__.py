"""The operations of the model: each defined once in plain PyTorch, with the choice of a faster form."""

from uniformerv2.ops.dispatch import set_impl

__all__ = ["set_impl"]
