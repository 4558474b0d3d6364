"""Reading and writing models in the formats that other programs use."""
