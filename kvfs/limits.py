"""What users and files may have of the file system. The numbers in force are in kernel/limits.py."""

from __future__ import annotations

import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FileLimits:
    """Of a user, a file, a path."""

    files_per_user: int = sys.maxsize        # files alive, and names beyond the first of each
    pages_per_user: int = 0                  # charged to a user; 0: all that the pool has
    path_bytes: int = 1024                   # from the root
    path_names: int = 16                     # likewise: a tree of deep directories would cost more than its files
    grants: int = sys.maxsize                # of one file
    parts: int = sys.maxsize                 # of one file
    tokens: int = sys.maxsize                # of one file that is made of others
