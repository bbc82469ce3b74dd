"""Many files by many processes: names on this machine or in S3, and work in this process or on a Ray cluster.

names -> `plan` -> pairs (source, target) -> `work_here` or `on_ray` -> an `apply.Outcome` for each. A name is a path or
a URL such as s3://bucket/photos/a.jpg. Ray, fsspec and s3fs are imported on first use: `pip install 'perceptual[ray]'`.
"""

from perceptual.cluster.engine import on_ray
from perceptual.cluster.names import as_url, without_file_scheme
from perceptual.cluster.planning import VIDEO_SUFFIXES, Naming, Plan, plan
from perceptual.cluster.work import Convert, Results, Start, work_here

__all__ = [
    "VIDEO_SUFFIXES",
    "Convert",
    "Naming",
    "Plan",
    "Results",
    "Start",
    "as_url",
    "on_ray",
    "plan",
    "without_file_scheme",
    "work_here",
]
