"""How well a file of features finds videos of the same class: leave one source out.

    uniformerv2 features ../shared/data/ucf101_6class --split val --whole --model models/demo --out val
    python examples/retrieval.py val/features.parquet

Every video asks once. What was cut from the same source (``v_Archery_g04_c01``, ``..._c02``) is left out of its
answers, as it shows the same people at the same place. With ``--gallery FILE`` the answers come from another file.
"""

from __future__ import annotations

import argparse

import numpy as np

from uniformerv2.data.annotations.held_out import source_of
from uniformerv2.inference.features.index import FeatureIndex


def main() -> None:
    """Print recall at 1 and mean average precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("queries", help="features.parquet of labelled videos")
    parser.add_argument("--gallery", help="where the answers come from (default: the same file)")
    options = parser.parse_args()
    queries = FeatureIndex.read(options.queries)
    gallery = FeatureIndex.read(options.gallery) if options.gallery else queries
    if gallery.model != queries.model:
        parser.error("the two files are of two models")
    found = np.array([scores(queries, gallery, row) for row in range(len(queries.videos))])
    first, precision, centre = np.nanmean(found, axis=0)
    print(f"{len(queries.videos)} videos asked {len(gallery.videos)}")
    print(f"recall@1 {100 * first:.1f} %   mAP {100 * precision:.1f} %   nearest class centre {100 * centre:.1f} %")


def scores(queries: FeatureIndex, gallery: FeatureIndex, row: int) -> tuple[float, float, float]:
    """Whether the nearest video has the class of this one; the average precision; whether the nearest centre has it.

    All are NaN where no video of another source has the class.
    """
    sources = np.array([source_of(path) for path in gallery.videos])
    is_other = sources != source_of(queries.videos[row])
    vectors, labels = gallery.vectors[is_other], np.array(gallery.labels)[is_other]
    vector, label = queries.vectors[row], queries.labels[row]
    is_right = labels[np.argsort(-(vectors @ vector), kind="stable")] == label
    if not is_right.any():
        return np.nan, np.nan, np.nan
    ranks = np.flatnonzero(is_right) + 1
    names = np.unique(labels)
    centres = np.stack([vectors[labels == name].mean(axis=0) for name in names])
    nearest = names[np.argmax(centres @ vector / np.linalg.norm(centres, axis=1))]
    return float(is_right[0]), float((np.arange(1, len(ranks) + 1) / ranks).mean()), float(nearest == label)


if __name__ == "__main__":
    main()
