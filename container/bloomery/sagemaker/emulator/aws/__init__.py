"""The rest of AWS: moto behind us, what is kept of S3, and what is written into logs and metrics."""
