"""Kernels: compiled once per machine, and what is needed later is compiled by another process meanwhile."""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest


def run(code, tmp_path, **environment):
    """Run a program whose kernels no machine code is kept of yet, or only what an earlier call kept."""
    places = {
        "NUMBA_CACHE_DIR": str(tmp_path / "machine-code"),
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
    }
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, **places, **environment},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )


USE = """
    import time
    from pathlib import Path
    from shardtrain.runtime.kernels import compile_ahead
    from user import double
    compile_ahead("ahead")
    double(1)
    if {waits}:
        for _ in range(600):
            if Path("done").exists():
                break
            time.sleep(0.1)
"""


def test_only_a_process_that_compiles_has_another_one_compile_what_is_needed_later(tmp_path):
    (tmp_path / "user.py").write_text(
        "from shardtrain.runtime.kernels import kernel\n@kernel\ndef double(x):\n    return 2 * x\n"
    )
    (tmp_path / "ahead.py").write_text("print('ahead')\nopen('done', 'w').close()\n")

    first = run(USE.format(waits=True), tmp_path)
    assert (tmp_path / "done").exists()
    assert first.stdout == ""
    assert "once" in first.stderr

    (tmp_path / "done").unlink()
    second = run(USE.format(waits=False), tmp_path)
    time.sleep(0.5)
    assert not (tmp_path / "done").exists()
    assert second.stderr == ""


def test_a_process_beside_ends_with_the_one_that_started_it(tmp_path):
    (tmp_path / "beside.py").write_text(
        "import os, time\nfrom shardtrain.runtime.process import end_with_parent\nend_with_parent()\n"
        "open('started', 'w').write(str(os.getpid()))\ntime.sleep(60)\n"
    )
    code = """
        import os, signal, time
        from pathlib import Path
        from shardtrain.runtime.kernels import _run_beside
        _run_beside("beside")
        while not (Path("started").exists() and Path("started").read_text()):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    with pytest.raises(subprocess.CalledProcessError):
        run(code, tmp_path)
    beside = int((tmp_path / "started").read_text())
    for _ in range(100):
        try:
            os.kill(beside, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{beside}/stat").exists() and " Z " in Path(f"/proc/{beside}/stat").read_text():
            return  # ended, and nobody asked for its status
        time.sleep(0.05)
    raise AssertionError("it still runs")


@pytest.mark.slow
def test_a_training_compiles_no_kernel_of_the_engine_after_its_first_use(tmp_path):
    run("from shardtrain.engine.first_use import compile_kernels; compile_kernels()", tmp_path)
    done = run(
        """
        from numba.core import event
        from shardtrain.runtime import kernels

        class Compiled(event.Listener):
            def on_start(self, found):
                print(found.data["dispatcher"].py_func.__module__)

            def on_end(self, found):
                pass

        event.register("numba:compile", Compiled())
        from shardtrain.cli.main import main
        main(["demo", "--out", "corpus", "--documents", "400"])
        for model in ("mlp", "linear"):
            main(["train", "corpus", "--model", model, "--out", model])
        """,
        tmp_path,
    )
    compiled = [line for line in done.stdout.splitlines() if line.startswith("shardtrain.")]
    assert compiled
    assert not [module for module in compiled if module.startswith("shardtrain.engine")]
