"""sagemaker-runtime: invocations at once, as a stream, asynchronous."""
