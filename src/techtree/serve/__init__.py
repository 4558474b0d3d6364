"""An engine behind HTTP, for editors on this machine."""
