"""Records, clips and batches: annotations, sampling, transforms, the dataset, the loader."""
