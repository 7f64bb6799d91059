"""Loaders and data sets.

Every loader yields tuples of Tensors; every data set lives on the host as NumPy arrays.
"""

from netcl.data.fashion import ImageSet, load_fashion_mnist
from netcl.data.loader import ArrayDataset, DataLoader, Dataset, Sampler, shuffled

__all__ = ["ArrayDataset", "DataLoader", "Dataset", "ImageSet", "Sampler", "load_fashion_mnist", "shuffled"]
