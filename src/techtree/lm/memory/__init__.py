"""What stood in this file and around it before: exact text, mixed into any model's distribution."""
