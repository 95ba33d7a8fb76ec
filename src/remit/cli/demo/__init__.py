"""`remit demo`: the whole path once, on a git repository that the demo makes itself."""
