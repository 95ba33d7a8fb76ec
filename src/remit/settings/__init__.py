"""How `remit.yaml` is read: strict YAML, four sources in order, and errors with lines."""
