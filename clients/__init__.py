"""Programs that use the engine; the command line alone composes everything."""
