"""The program that asks llama.cpp's server for one prompt: run by `template_engine`.

stdin: {"file", "messages", "key"}; stdout: {"prompt"}; the server's log goes to stderr.
"""

import json
import os
import sys
from urllib.request import ProxyHandler, Request, build_opener

CONTEXT = 256
BATCH = 32
"""Nothing is generated: the smallest buffers will do."""


def main() -> None:
    """Read the request, ask the server, print the answer."""
    import xllamacpp  # type: ignore[import-untyped]

    request = json.load(sys.stdin)
    parameters = xllamacpp.CommonParams()
    parameters.model.path = request["file"]
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


if __name__ == "__main__":
    main()
