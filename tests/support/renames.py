"""What a program of its own runs first that is to kill itself at one of its renames."""

from __future__ import annotations

KILLED_AT_RENAME = '''
import os, signal

def killed_at_rename(at, out, by=signal.SIGKILL):
    """Kill this process at its rename number `at` in the folder `out`, before it (`at` below 0) or after it; 0: never.

    Another signal may be sent. Returns the list of the renamed files, which grows.
    """
    renamed, real = [], os.replace

    def replace(source, target):
        if out not in str(target):  # caches of compiled kernels
            return real(source, target)
        renamed.append(str(target))
        if len(renamed) == -at:
            os.kill(os.getpid(), by)
        real(source, target)
        if len(renamed) == at:
            os.kill(os.getpid(), by)

    os.replace = replace
    return renamed
'''
