"""Compile all kernels for arm64, and look in the machine code for instructions that would change results.

A fused multiply-add rounds once where a product and a sum round twice. LLVM fuses only where it is permitted to, which
this confirms: kernels then compute the same bits on arm64 as on x86-64. They are compiled as numba compiles them, with
its own optimizations off, as those of x86-64 leave operations that other processors do not have.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path

TARGETS = {"aarch64-unknown-linux-gnu": "generic", "arm64-apple-macosx12.0.0": "apple-m1"}  # with their processor
FUSED = re.compile(r"\b(fn?m(?:add|sub|la|ls))\b")


def run_kernels(folder: Path) -> None:
    """Call the kernels, which compiles them, by building and reading shards of both kinds of features."""
    from shardtrain.datasets.demo import write_demo
    from shardtrain.loader.shards import open_shards
    from shardtrain.pipeline.build import build
    from shardtrain.pipeline.options import BuildOptions

    write_demo(folder / "demo", documents=300, classes=3, seed=1)
    for kind in ("ngram", "sequence"):
        build(folder / "demo", folder / kind, BuildOptions(workers=1, vectorizer=kind))
        with open_shards(folder / kind) as shards:
            for order in ("window", "global", "blocks"):
                for _ in shards.train.batches(64, seed=1, epoch=0, shuffle=order):
                    pass


def compiled() -> dict[str, str]:
    """Return the kernels' code in LLVM's language, by name and types of arguments."""
    from numba.core.registry import CPUDispatcher

    modules = [module for name, module in sys.modules.items() if name.startswith("shardtrain.")]
    kernels = {
        id(each): each for module in modules for each in vars(module).values() if isinstance(each, CPUDispatcher)
    }
    return {
        f"{each.py_func.__module__}.{each.py_func.__name__}{types}": code
        for each in kernels.values()
        for types, code in each.inspect_llvm().items()
    }


def main() -> int:
    """Print how many kernels were compiled for each target; exit code 1 if instructions are fused."""
    os.environ["NUMBA_OPT"] = "0"  # read when numba is imported
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["NUMBA_CACHE_DIR"] = scratch
        import llvmlite.binding as llvm

        run_kernels(Path(scratch))
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
        fused = []
        for triple, processor in TARGETS.items():
            machine = llvm.Target.from_triple(triple).create_target_machine(cpu=processor, opt=3)
            for name, code in (kernels := compiled()).items():
                code = re.sub(r'target triple = ".*"', f'target triple = "{triple}"', code)
                code = re.sub(r'target datalayout = ".*"', f'target datalayout = "{machine.target_data}"', code)
                assembly = machine.emit_assembly(
                    llvm.parse_assembly(re.sub(r'"target-(cpu|features)"="[^"]*"', "", code))
                )
                fused += [f"{triple}: {name}: {found}" for found in sorted(set(FUSED.findall(assembly)))]
            print(f"{triple}: {len(kernels)} kernels compiled")
    print("\n".join(fused) or "no fused multiply-add")
    return 1 if fused else 0


if __name__ == "__main__":
    sys.exit(main())
