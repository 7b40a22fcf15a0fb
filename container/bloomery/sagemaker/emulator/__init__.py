"""SageMaker on this machine: its API on one port, and endpoints that are real processes.

The control plane (models, configurations, endpoints) decides what should run; a ``deployment.Fleet`` runs it.
"""
