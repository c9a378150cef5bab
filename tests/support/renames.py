"""What a program of its own runs first that is to kill itself at one of its renames."""

from __future__ import annotations

KILLED_AT_RENAME = '''
import os, signal

def killed_at_rename(at, out):
    """Kill this process at its rename number `at` in the folder `out`, before it (`at` below 0) or after it; 0: never.

    Returns the list of the renamed files, which grows.
    """
    renamed, real = [], os.replace

    def replace(source, target):
        if out not in str(target):  # caches of compiled kernels
            return real(source, target)
        renamed.append(str(target))
        if len(renamed) == -at:
            os.kill(os.getpid(), signal.SIGKILL)
        real(source, target)
        if len(renamed) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = replace
    return renamed
'''
