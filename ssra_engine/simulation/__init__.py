"""A simulated world whose grades can be known exactly; its door is `ssra_engine.simulate`."""
