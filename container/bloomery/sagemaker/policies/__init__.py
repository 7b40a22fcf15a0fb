"""Who may do what: the policies for the execution role and for the user who deploys; no right that is not used."""

from bloomery.sagemaker.policies.filling import KINDS, Names, policy

__all__ = ["KINDS", "Names", "policy"]
