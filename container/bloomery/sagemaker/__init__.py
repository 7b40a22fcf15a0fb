"""SageMaker: what deploys to it, and what stands in for it on this machine."""
