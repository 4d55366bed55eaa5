"""Processes that need not import torch and anomalib anew: forked off one that has. An interpreter takes eight seconds for it.

What a process is forked off has imported and nothing else: a command finds what it would find in an interpreter of its own,
but for what is decided by the environment while importing.
"""

import importlib.metadata
import json
import multiprocessing
import os
import socket
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["anomalib.cli", "anomalib.engine", "anomalib_dpclip.cli", "anomalib_dpclip.model.lightning_model"]
)

COMMANDS = ("anomalib", "dpclip")

SHIM = """\
#!{python} -IS
import json, os, socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect({address!r})
request = {{"argv": sys.argv, "folder": os.getcwd(), "environment": dict(os.environ)}}
socket.send_fds(connection, [json.dumps(request).encode()], [0, 1, 2])
sys.exit(int(connection.recv(16) or 1))
"""


@cache
def command_folder() -> Path:
    """A folder, for the beginning of ``PATH``, with the commands of anomalib and of this package."""
    folder = Path(tempfile.mkdtemp())
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "socket"))
    listener.listen()
    threading.Thread(target=_answer, args=(listener,), daemon=True).start()
    for command in COMMANDS:
        shim = folder / command
        shim.write_text(SHIM.format(python=sys.executable, address=str(folder / "socket")))
        shim.chmod(0o755)
    return folder


def _answer(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        _CONTEXT.Process(target=_as_usual, args=(_run_command, connection)).start()
        connection.close()


def run(function: Callable[..., None], *arguments: Any) -> int:
    """Call a function of a module in a process of its own; its exit code, negative for a signal."""
    process = _CONTEXT.Process(target=_as_usual, args=(function, *arguments))
    process.start()
    process.join()
    return process.exitcode


def _as_usual(function: Callable[..., None], *arguments: Any) -> None:
    # Otherwise its own processes, such as those that read images, would be started as it was.
    multiprocessing.set_start_method(None, force=True)
    function(*arguments)


def _run_command(connection: socket.socket) -> None:
    """Run a command as its console script would, on the caller's streams; a process that dies closes the connection."""
    message, streams, *_ = socket.recv_fds(connection, 2**20, 3)
    request = json.loads(message)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = os.fdopen(0)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = request["argv"]
    (script,) = importlib.metadata.entry_points(group="console_scripts", name=Path(sys.argv[0]).name)
    status: object = 1
    try:
        status = script.load()()
    except SystemExit as ended:
        status = ended.code
    except Exception:  # noqa: BLE001  (the interpreter prints any)
        traceback.print_exc()
    if isinstance(status, str):  # as the interpreter does
        sys.stderr.write(f"{status}\n")
    sys.stdout.flush()
    sys.stderr.flush()
    connection.send(str(status if isinstance(status, int) else int(status is not None)).encode())
