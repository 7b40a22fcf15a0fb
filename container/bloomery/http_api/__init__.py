"""The HTTP door: SageMaker's and DJLServing's routes over the models of a registry."""
