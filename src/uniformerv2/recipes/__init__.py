"""Recipes, one file each; see ``uniformerv2.training.recipes``."""
