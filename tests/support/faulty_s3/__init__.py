"""A small S3 server for tests and benchmarks, which can fail in every way that S3 is known to fail.

It serves a directory as bucket/key: what a test writes there is an object, and what a client puts is a file. In the
test's own process it is a block, ``with FaultyS3(directory) as server``; as a process of its own
(``python -m tests.support.faulty_s3 DIR``) it is ``FaultyS3Process``, with the same methods.
"""

from tests.support.faulty_s3.faults import Fault
from tests.support.faulty_s3.log import Record
from tests.support.faulty_s3.process import FaultyS3Process
from tests.support.faulty_s3.server import FaultyS3

__all__ = ["Fault", "FaultyS3", "FaultyS3Process", "Record"]
