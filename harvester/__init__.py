"""Mirrors whole datasets from signed, rate-limited, paginated open-data platforms."""
