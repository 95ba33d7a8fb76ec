"""MCP servers behind the gateway: speaking with them, and what they say of their tools."""
