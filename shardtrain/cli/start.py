"""Start the command line as a process: signals and streams are secured before anything that takes time is imported."""

from __future__ import annotations

import signal


def main() -> int:
    """Run the command line of this process and return its exit code."""
    waiting = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    from shardtrain.runtime.interrupts import EXIT_CODE, end_process, interruptible, let_signals_end_it
    from shardtrain.runtime.terminal import secure_standard_streams, tell

    secure_standard_streams()
    try:
        with interruptible():
            signal.pthread_sigmask(signal.SIG_SETMASK, waiting)
            from shardtrain.cli.main import main as run

            code = run()
    except KeyboardInterrupt:
        tell("interrupted")
        code = EXIT_CODE
    if code == EXIT_CODE:
        end_process(code)
    let_signals_end_it()
    return code
