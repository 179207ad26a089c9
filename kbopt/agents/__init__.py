"""The judge as a tool of coding agents: sessions, their runs' folders, and the MCP server before them."""
