from tests.runners.fixtures import reachable

__all__ = ["reachable"]
