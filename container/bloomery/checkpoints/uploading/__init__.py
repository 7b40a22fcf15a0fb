"""From a directory to S3: what is missing, each part confirmed."""
