from tests.cli.conftest import home, remit

__all__ = ["home", "remit"]
