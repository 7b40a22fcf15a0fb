"""From a source into tensors: own ranges, and blocks that the ranks of a machine share."""
