"""What a checkpoint needs and what it fits on, before anything is deployed or downloaded."""

from bloomery.sagemaker.planning.options import Option, Work
from bloomery.sagemaker.planning.plan import Plan, plan

__all__ = ["Option", "Plan", "Work", "plan"]
