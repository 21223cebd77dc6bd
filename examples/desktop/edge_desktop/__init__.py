"""A desktop app that embeds edge-reasoning-runtime."""
