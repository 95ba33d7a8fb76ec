"""MCP servers that stand behind Remit in tests: one of our own, and real ones from registries."""
