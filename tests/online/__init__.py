"""Tests with a loopback W&B server, the real client and real agents."""
