#!/usr/bin/env python3
"""Kernels that move registers between warpgroups (setmaxnreg) start with what they divide, by their machine code.

  tests/kernels/launch_registers.py FOLDER

FOLDER has the objects of the CUDA kernels. A warpgroup that takes more than others gave away, and than the launch brought,
waits for good: `threads * registers at launch` must cover `threads of the one group that gives * what it keeps + threads
of the others * what they take`. Needs cuobjdump: on the PATH, in CUDA's folder, or of the Python package
nvidia-cuda-cuobjdump; where it is not there, ends with 77.
"""
import importlib.util
import pathlib
import re
import shutil
import subprocess
import sys

GROUP = 128  # threads
# Of kernels whose bound is a number of registers instead of threads.
THREADS = {"stream_groups": 640}


def find_tool():
    if found := shutil.which("cuobjdump"):
        return found
    places = [pathlib.Path("/usr/local/cuda/bin")]
    if spec := importlib.util.find_spec("nvidia"):
        places += [path for root in spec.submodule_search_locations for path in pathlib.Path(root).glob("*/bin")]
    for place in places:
        if (place / "cuobjdump").exists():
            return str(place / "cuobjdump")
    return None


def run(tool, *arguments):
    return subprocess.run([tool, "-arch", "sm_90a", *arguments], capture_output=True, text=True, check=True).stdout


def launches(text):
    """Registers and, where they are bounded, threads at launch of every kernel, by `cuobjdump -elf`."""
    registers = {name: int(count) for name, count in re.findall(r"function: (\w+)\(0x\w+\)\s+register count: (\d+)", text)}
    threads = {}
    for name, section in re.findall(r"^\.nv\.info\.(\w+)\n(.*?)(?=^\.\w|\Z)", text, re.MULTILINE | re.DOTALL):
        if bound := re.search(r"EIATTR_MAX_THREADS\n\s*Format:.*\n\s*Value:\s*(0x\w+) (0x\w+) (0x\w+)", section):
            threads[name] = int(bound[1], 16) * int(bound[2], 16) * int(bound[3], 16)
    return registers, threads


def moves(text):
    """What the groups of every kernel that moves registers keep and take, by `cuobjdump -sass`."""
    found, name = {}, ""
    for line in text.splitlines():
        if "Function :" in line:
            name = line.split(":")[1].strip()
        elif move := re.search(r"USETMAXREG\.(\w+)\.CTAPOOL (?:UP\d, )?(0x\w+)", line):
            found.setdefault(name, []).append((move[1], int(move[2], 16)))
    return found


def main():
    tool = find_tool()
    if tool is None:
        print("there is no cuobjdump on this host")
        return 77
    seen, wrong = 0, []
    for path in sorted(pathlib.Path(sys.argv[1]).rglob("*.o")):
        if b"\0.nv_fatbin" not in path.read_bytes():
            continue
        text = run(tool, "-elf", str(path))
        if "EIATTR_REG_RECONFIG" not in text:
            continue
        registers, threads = launches(text)
        for name, steps in moves(run(tool, "-sass", str(path))).items():
            seen += 1
            all_threads = threads.get(name) or next((count for part, count in THREADS.items() if part in name), 0)
            kept = max(count for step, count in steps if step == "DEALLOC")
            taken = max((count for step, count in steps if step == "TRY_ALLOC"), default=0)
            needed = GROUP * kept + (all_threads - GROUP) * taken
            if not all_threads or needed > all_threads * registers[name]:
                wrong.append(f"{path.name} {name}: {all_threads} threads begin with {registers[name]} registers each; one "
                             f"group keeps {kept} and the others take {taken}")
    print(f"{seen} kernels move registers, {len(wrong)} of them begin with too few")
    print("\n".join(wrong))
    return 1 if wrong or seen == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
