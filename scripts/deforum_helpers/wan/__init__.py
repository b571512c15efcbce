"""The parts of the model, as the worker process uses them.  Nothing outside the worker imports this."""
