from tests.runners.fixtures import limited_runner, runner

__all__ = ["limited_runner", "runner"]
