"""OpenAI-compatible HTTP server around a solver."""
