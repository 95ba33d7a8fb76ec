"""`remit demo`: the whole path once, on a git repository that the demo makes itself."""

from remit.cli.demo.command import demo

__all__ = ["demo"]
