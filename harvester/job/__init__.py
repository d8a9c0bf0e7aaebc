"""The job file and the environment, read once into frozen settings."""

from harvester.job.file import Job, RunSettings

__all__ = ["Job", "RunSettings"]
