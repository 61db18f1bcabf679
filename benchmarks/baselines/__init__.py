"""Bare servers that do what no server can do without: the ceilings that tfopt's faces are measured against."""
