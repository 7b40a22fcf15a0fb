"""From a source to a directory: staged, journalled, checked, published at once."""
