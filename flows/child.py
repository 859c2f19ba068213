"""`python -m flows.child PARENT MODULE ARGUMENT...`: run a module as a program that dies with the process PARENT.

`gristmill up` starts the server and the worker so: even a kill -9 of it leaves neither running.
"""

import runpy
import sys

from flows.process import die_with


def main() -> None:
    """Bind this process to its parent, then become the module."""
    parent, module = int(sys.argv[1]), sys.argv[2]
    die_with(parent)
    sys.argv = [module, *sys.argv[3:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
