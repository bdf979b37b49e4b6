"""From files on disk to tensors: annotations, decoding, sampling, transforms, the dataset."""
