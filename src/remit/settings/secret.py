"""Secrets by reference, as keys of `remit.yaml` have them; read by the keeper too."""

from __future__ import annotations

from remit.secret import Secret, SecretRef

__all__ = ["Secret", "SecretRef"]
