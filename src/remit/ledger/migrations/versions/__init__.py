"""One module a step; each is frozen once a release has it."""
