"""Training: data module, classifier, optimiser, recipes; needs the extra ``train``."""
