"""From one derivative to a network's gradients."""
