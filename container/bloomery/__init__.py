"""Serve large language models the way SageMaker, DJLServing and DeepSpeed-MII users expect."""

__version__ = "0.1.0"
