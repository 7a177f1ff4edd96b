"""How to reach things: files, programs, HTTP, sops. Shared by targets and destinations; knows neither."""
