"""An in-memory fake of every port, and the contract suite that each backend must pass."""
