"""edge-reasoning-runtime: an on-device reasoning runtime."""
