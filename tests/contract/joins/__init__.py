"""The contract of joins: whoever keeps the parts, a chord ends once, whole, and in order."""
