"""`remit doctor`: this machine and this installation, line by line, each with its fix."""

from remit.cli.doctor.command import doctor

__all__ = ["doctor"]
