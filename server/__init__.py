"""The OpenAI Realtime API over WebSocket for one bundle, and a page to talk to it (docs/SERVER.md)."""
