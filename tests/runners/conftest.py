from tests.runners.fixtures import limited_runner, reachable, runner

__all__ = ["limited_runner", "reachable", "runner"]
