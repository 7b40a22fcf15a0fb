"""``python -m bloomery.bench.transfer_manager URI DIRECTORY [CONNECTIONS PART_BYTES]``: what a user of boto3 would do.

All objects go through one TransferManager, so that small ones are fetched side by side, too.
"""

from __future__ import annotations

import sys
from pathlib import Path

import boto3
from boto3.s3.transfer import TransferConfig, create_transfer_manager
from botocore.config import Config


def main(uri: str, directory: Path, connections: int = 0, part: int = 0) -> None:
    """Fetch every object below ``uri``; boto3's defaults unless told otherwise."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    tuned = TransferConfig(max_concurrency=connections, multipart_chunksize=part) if connections else TransferConfig()
    client = boto3.client("s3", config=Config(max_pool_connections=max(10, connections)))
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/")
    with create_transfer_manager(client, tuned) as manager:
        transfers = [
            manager.download(bucket, item["Key"], str(directory / item["Key"].rpartition("/")[2]))
            for page in pages
            for item in page["Contents"]
        ]
        for transfer in transfers:
            transfer.result()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:]))
