"""SageMaker's control plane: what is asked, whether it may be, and what is remembered."""
