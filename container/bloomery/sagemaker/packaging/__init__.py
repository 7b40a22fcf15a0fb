"""A model directory becomes a model.tar.gz in S3: looked at first, the same bytes every time, under a name of its own.

``package`` makes the archive, ``upload`` brings it to S3.
"""

from bloomery.sagemaker.finding import Finding
from bloomery.sagemaker.packaging.archive import Archive, package
from bloomery.sagemaker.packaging.uploading import upload

__all__ = ["Archive", "Finding", "package", "upload"]
