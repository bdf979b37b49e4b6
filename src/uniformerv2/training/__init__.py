"""Training: data module, classifier, optimiser, recipes; needs the extra ``train``."""

from uniformerv2.core.optional import check_installed

check_installed("lightning", "torchmetrics", extra="train")  # once for all files of this room, which import them
