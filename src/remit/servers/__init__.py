"""The MCP servers of the catalog: what they offer, what of it was accepted, and how they are."""
