"""Other fronts that stand between the same client and the same MCP server in `bench.upstream`."""
