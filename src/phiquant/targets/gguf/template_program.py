"""The program that asks llama.cpp's server for one prompt: run by `template_engine`.

stdin: {"file", "readable", "messages", "key"}; stdout: {"prompt"}; the server's log goes to stderr.
"""

import json
import os
import socket
import sys
from pathlib import Path
from urllib.request import ProxyHandler, Request, build_opener

from phiquant.host.confinement import confine
from phiquant.host.cores import cores
from phiquant.host.limits import die_with, limit_resources

CONTEXT = 256
BATCH = 32
"""Nothing is generated: the smallest buffers will do."""
MEMORY, A_CORE = 2 << 30, 32 << 20
"""Bytes that the server may allocate, for itself and for the threads of each core; weights are
mapped."""


def main() -> None:
    """Read the request, ask the server, print the answer."""
    request = json.load(sys.stdin)
    port = _free_port()
    die_with(os.getppid())
    limit_resources(MEMORY + A_CORE * cores(), None)
    confine(map(Path, request["readable"]), port)
    import xllamacpp  # type: ignore[import-untyped]

    parameters = xllamacpp.CommonParams()
    parameters.model.path = request["file"]
    parameters.port = port
    parameters.api_keys = [request["key"]]
    parameters.n_ctx = CONTEXT
    parameters.n_batch = parameters.n_ubatch = BATCH
    parameters.n_parallel = 1
    parameters.n_gpu_layers = 0
    parameters.warmup = False
    parameters.no_extra_bufts = True  # weights stay mapped as they are
    parameters.use_jinja = True
    server = xllamacpp.Server(parameters)
    body = json.dumps({"messages": request["messages"]}).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {request['key']}"}
    address = f"{server.listening_address}/apply-template"
    # Proxies are for other machines.
    with build_opener(ProxyHandler({})).open(Request(address, body, headers)) as answer:
        prompt = json.load(answer)["prompt"]
    json.dump({"prompt": prompt}, sys.stdout)
    sys.stdout.flush()
    # Taking the server down may wait forever for a loop that has not begun yet.
    os._exit(0)


def _free_port() -> int:
    """A port of this machine that nothing listens to."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
