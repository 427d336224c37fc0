"""The drawn demo set: shapes, and how they are painted. Imports config and system."""
