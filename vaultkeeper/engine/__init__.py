"""The engine: plans phases and judges answers (pure), takes steps (through the ports), never names a kind."""
