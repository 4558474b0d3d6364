"""One small protocol for whatever completes code, and the engines that speak it."""
