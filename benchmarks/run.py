"""All benchmarks, one after the other, as one table: `make bench`.

    python benchmarks/run.py [NAME ...] [--out FILE]

Each runs in a process of its own and prints one JSON line; the file holds these lines. Without
names, those that need neither a large disk nor hours.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
QUICK = {
    "epoch": [],
    "imputation": [],
    "velocity": [],
    "simulate": [],
    "census": [],
    "store": [],
    "loader": ["--cells", "10000", "50000"],
    "plan": [],
    "search": ["--trials", "12", "--epochs", "10"],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(QUICK))
    parser.add_argument("--out", type=Path, default=HERE.parent / "_build" / "benchmarks.json")
    args = parser.parse_args()
    if unknown := set(args.names) - QUICK.keys():
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(QUICK)}")
    results, failed = [], []
    for name in args.names:
        command = [sys.executable, HERE / f"{name}.py", *QUICK[name]]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            failed.append(name)
            print(f"{name}: failed\n{done.stderr[-2000:]}", file=sys.stderr)
            continue
        results.append({"benchmark": name} | json.loads(done.stdout.splitlines()[-1]))
        for key, value in results[-1].items():
            print(f"{'' if key == 'benchmark' else key:>34}  {value}", flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text("\n".join(map(json.dumps, results)) + "\n")
    print(f"Written to {args.out}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
