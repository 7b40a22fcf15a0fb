from tests.support.worker_models import start_model

__all__ = ["start_model"]
