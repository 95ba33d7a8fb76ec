"""`remit init --import`: MCP servers that clients' files on this machine define, behind Remit."""
